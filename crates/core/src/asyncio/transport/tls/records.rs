//! Which records of TLS have come whole, by their headers alone (RFC 8446, 5.1): how often the session can be asked for
//! plain bytes before it has to say that it wants more, which costs an exception.

/// The type (1 byte), the version (2) and the length of what follows (2).
const HEADER: usize = 5;
/// A body longer than that is not waited for: TLS 1.3 allows its cipher to add no more to 2^14 bytes of plain text, and the session
/// refuses such a record by its header. TLS 1.2 allows more, which hardly any peer makes use of.
const LONGEST: usize = (1 << 14) + 256;

#[derive(Default)]
pub struct Records {
    /// Something else than records has come: nothing is known any more.
    strange: bool,
    header: [u8; HEADER],
    /// Bytes of the last record, header and all, that have come; 0 between two records.
    begun: usize,
    /// Records that have come whole and that the session was not asked for. It may have taken some all the same: those that hold
    /// no plain bytes.
    whole: usize,
    /// Their bytes. What they hold decrypted is less.
    bytes: usize,
}

impl Records {
    /// Takes note of what the session is fed.
    pub fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.strange {
            if self.begun < HEADER {
                let (part, rest) = data.split_at(data.len().min(HEADER - self.begun));
                self.header[self.begun..self.begun + part.len()].copy_from_slice(part);
                self.begun += part.len();
                data = rest;
                if self.begun < HEADER {
                    return;
                }
                // ChangeCipherSpec, alert, handshake, plain bytes; the versions from SSL 3.0 to TLS 1.3. Of anything else the session
                // may complain before it is whole.
                let known = matches!(self.header, [20..=23, 3, 0..=4, ..]);
                self.strange = !known || self.body() > LONGEST;
            }
            let part = data.len().min(HEADER + self.body() - self.begun);
            self.begun += part;
            data = &data[part..];
            if self.begun == HEADER + self.body() {
                self.whole += 1;
                self.bytes += self.begun;
                self.begun = 0;
            }
        }
    }

    /// What was fed can't be followed.
    pub fn lose_track(&mut self) {
        self.strange = true;
    }

    /// How many whole records there are for the session, and their bytes; `None` if that is unknown.
    pub fn whole(&self) -> Option<(usize, usize)> {
        (!self.strange).then_some((self.whole, self.bytes))
    }

    /// The session has given the plain bytes of one.
    pub fn one_read(&mut self) {
        self.whole = self.whole.saturating_sub(1);
        if self.whole == 0 {
            self.bytes = 0;
        }
    }

    /// The session has taken all.
    pub fn all_taken(&mut self) {
        self.whole = 0;
        self.bytes = 0;
    }

    fn body(&self) -> usize {
        usize::from(u16::from_be_bytes([self.header[3], self.header[4]]))
    }
}
