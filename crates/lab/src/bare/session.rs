//! The conversations of the bare servers: one connection's side, without I/O. The bytes are the same as in
//! `proact.lab.workloads`.

/// The largest answer of [`Web`], in bytes.
const LARGEST: usize = 16 << 20;
/// The longest request of [`Web`], in bytes.
const LONGEST: usize = 64 << 10;

/// One connection's side of the conversation.
pub trait Session: Default {
    /// Whether the answer is always the data that arrived: then a server may send from the buffer that it received
    /// into.
    const ECHOES: bool;

    /// Takes the data that arrived and returns the data to send.
    fn feed<'a>(&'a mut self, data: &'a [u8]) -> &'a [u8];

    /// Whether to close the connection once everything has been sent.
    fn is_over(&self) -> bool {
        false
    }
}

/// Returns every byte unchanged.
#[derive(Default)]
pub struct Echo;

impl Session for Echo {
    const ECHOES: bool = true;

    fn feed<'a>(&'a mut self, data: &'a [u8]) -> &'a [u8] {
        data
    }
}

/// HTTP/1.1 with keep-alive and pipelining: the answer to `GET /bytes/N` is N bytes, to `GET /` a line that says so,
/// to any other path 404. It supports only what the load sends: a request with a body or another method is refused.
#[derive(Default)]
pub struct Web {
    /// The beginning of a request that has not arrived completely.
    begun: Vec<u8>,
    reply: Vec<u8>,
    over: bool,
    /// The last answer with its size and `keep`: usually the next answer is the same.
    last: (usize, bool, Vec<u8>),
}

impl Session for Web {
    const ECHOES: bool = false;

    fn feed<'a>(&'a mut self, data: &'a [u8]) -> &'a [u8] {
        self.reply.clear();
        let mut begun = std::mem::take(&mut self.begun);
        let mut left = data;
        if !begun.is_empty() {
            begun.extend_from_slice(data);
            left = &begun;
        }
        while !self.over
            && let Some(end) = left.windows(4).position(|four| four == b"\r\n\r\n")
        {
            self.answer(&left[..end]);
            left = &left[end + 4..];
        }
        if left.len() > LONGEST && !self.over {
            self.refuse();
        }
        self.begun = left.to_vec();
        &self.reply
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

impl Web {
    /// Answers one request. `head` is the request without its empty line.
    fn answer(&mut self, head: &[u8]) {
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let mut words = lines.next().unwrap_or_default().splitn(3, |byte| *byte == b' ');
        let (Some(b"GET"), Some(target), Some(b"HTTP/1.1")) = (words.next(), words.next(), words.next())
        else {
            return self.refuse();
        };
        let mut keep = true;
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return self.refuse();
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
            {
                return self.refuse();
            }
            keep &= !(name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close"));
        }
        match asked_for(target) {
            Some(size) => {
                if self.last.2.is_empty() || (self.last.0, self.last.1) != (size, keep) {
                    self.last = (size, keep, response("200 OK", &content(size), keep));
                }
                self.reply.extend_from_slice(&self.last.2);
            }
            None if target == b"/" => {
                let about = response("200 OK", b"GET /bytes/N answers N bytes\n", keep);
                self.reply.extend(about);
            }
            None => {
                let refusal = response("404 Not Found", b"there is only /bytes/N\n", keep);
                self.reply.extend(refusal);
            }
        }
        self.over = !keep;
    }

    fn refuse(&mut self) {
        self.reply
            .extend(response("400 Bad Request", b"no request of this server\n", false));
        self.over = true;
    }
}

/// The N of `/bytes/N`.
fn asked_for(target: &[u8]) -> Option<usize> {
    let digits = target.strip_prefix(b"/bytes/")?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let size = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (is_number && size <= LARGEST).then_some(size)
}

/// `size` bytes of numbered lines, so that a shifted byte is found.
fn content(size: usize) -> Vec<u8> {
    let mut lines: Vec<u8> = (0..=size / 16)
        .flat_map(|number| format!("{number:015x}\n").into_bytes())
        .collect();
    lines.truncate(size);
    lines
}

fn response(status: &str, body: &[u8], keep: bool) -> Vec<u8> {
    let (size, connection) = (body.len(), if keep { "keep-alive" } else { "close" });
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\nConnection: {connection}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::{Echo, Session, Web};

    fn said(session: &mut Web, data: &[u8]) -> String {
        String::from_utf8(session.feed(data).to_vec()).unwrap()
    }

    #[test]
    fn an_echo_is_where_it_was_received() {
        let data = b"as it came";
        assert_eq!(Echo.feed(data).as_ptr(), data.as_ptr());
    }

    #[test]
    fn a_request_may_come_in_pieces_and_several_in_one() {
        let request = b"GET /bytes/20 HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut session = Web::default();
        let whole = said(&mut session, request);
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(whole.ends_with("Content-Length: 20\r\nConnection: keep-alive\r\n\r\n000000000000000\n0000"));
        for byte in &request[..request.len() - 1] {
            assert_eq!(said(&mut session, &[*byte]), "");
        }
        assert_eq!(said(&mut session, b"\n"), whole);
        assert_eq!(said(&mut session, &request.repeat(3)), whole.repeat(3));
        assert!(!session.is_over());
    }

    #[test]
    fn what_it_does_not_serve_is_said() {
        for (request, status, over) in [
            ("GET / HTTP/1.1\r\n\r\n", "200", false),
            ("GET /bytes HTTP/1.1\r\n\r\n", "404", false),
            ("GET /bytes/+1 HTTP/1.1\r\n\r\n", "404", false),
            ("GET /bytes/99999999 HTTP/1.1\r\n\r\n", "404", false),
            ("GET /bytes/1 HTTP/1.1\r\nConnection: Close\r\n\r\n", "200", true),
            ("GET /bytes/1 HTTP/1.0\r\n\r\n", "400", true),
            ("POST /bytes/1 HTTP/1.1\r\n\r\n", "400", true),
            ("GET /bytes/1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n", "400", true),
            ("GET /bytes/1 HTTP/1.1\r\nno header\r\n\r\n", "400", true),
            ("\r\n\r\n", "400", true),
        ] {
            let mut session = Web::default();
            assert_eq!(
                said(&mut session, request.as_bytes())[9..12],
                *status,
                "{request}"
            );
            assert_eq!(session.is_over(), over, "{request}");
            // A session that is over answers no further request.
            assert_eq!(
                said(&mut session, b"GET /bytes/1 HTTP/1.1\r\n\r\n").is_empty(),
                over
            );
        }
        let mut session = Web::default();
        assert!(said(&mut session, &vec![b'x'; (64 << 10) + 1]).contains("400"));
        assert!(session.is_over());
    }
}
