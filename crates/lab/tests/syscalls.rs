//! The counter counts what a child is known to do, by both methods, and leaves the child as it was.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use proact_lab::SyscallCounter;

/// A child (this test binary again, see `child_main`) that makes 1,000 getppid calls whenever it is told to,
/// in one of its ways.
struct Subject {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Subject {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_main", "--exact", "--nocapture", "--test-threads=1"])
            .env("PROACT_LAB_CHILD", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut subject = Self { child, input, output };
        subject.wait_for("ready");
        subject
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(word) {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the child ended before it said {word}"
            );
        }
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.input, "{word}").unwrap();
        self.wait_for("done");
    }

    fn finish(mut self) {
        self.tell("main");
        writeln!(self.input, "end").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

/// Not a test of its own: what the child runs.
#[test]
fn child_main() {
    if std::env::var_os("PROACT_LAB_CHILD").is_none() {
        return;
    }
    let work = || {
        for _ in 0..1000 {
            // SAFETY: getppid takes no arguments and cannot fail. Made by number, so that no libc can cache
            // it.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
    };
    let (wake, woken) = std::sync::mpsc::channel::<()>();
    let (answer, answered) = std::sync::mpsc::channel::<()>();
    let _early_thread = std::thread::spawn(move || {
        while woken.recv().is_ok() {
            work();
            answer.send(()).unwrap();
        }
    });
    println!("\nready");
    for line in io::stdin().lines() {
        match line.unwrap().as_str() {
            "main" => work(),
            "early-thread" => {
                wake.send(()).unwrap();
                answered.recv().unwrap();
            }
            "new-thread" => std::thread::spawn(work).join().unwrap(),
            "process" => {
                assert!(
                    Command::new("/bin/sh")
                        .args(["-c", "exit 0"])
                        .status()
                        .unwrap()
                        .success()
                );
            }
            _ => break,
        }
        println!("\ndone");
    }
}

type Attach = fn(u32) -> io::Result<SyscallCounter>;

/// Runs `body` for each method that is allowed here.
fn with_each_method(body: impl Fn(Attach)) {
    let methods: [(&str, Attach); 2] = [
        ("perf", SyscallCounter::attach_perf),
        ("ptrace", SyscallCounter::attach_ptrace),
    ];
    for (name, attach) in methods {
        let mut probe = Subject::start();
        match attach(probe.child.id()) {
            Ok(counter) => {
                assert_eq!(counter.method(), name);
                probe.tell("main");
                drop(counter);
                probe.finish();
                body(attach);
            }
            // Permission is the machine's affair: say so, and do not pass it off as tested.
            Err(error) => eprintln!("SKIPPED {name}: {error}"),
        }
    }
}

#[test]
fn counts_threads_old_and_new() {
    with_each_method(|attach| {
        let mut subject = Subject::start();
        let counter = attach(subject.child.id()).unwrap();
        for (word, most) in [("main", 1020), ("early-thread", 1040), ("new-thread", 1080)] {
            let before = counter.read();
            subject.tell(word);
            // The answer comes before the child has gone back to its read: the last calls may still be under
            // way.
            let counted = counter.read() - before;
            assert!(
                (1000..most).contains(&counted),
                "{} {word}: {counted}",
                counter.method()
            );
        }
        drop(counter);
        subject.finish();
    });
}

#[test]
fn counts_child_processes() {
    with_each_method(|attach| {
        let mut subject = Subject::start();
        let counter = attach(subject.child.id()).unwrap();
        let before = counter.read();
        subject.tell("process");
        let counted = counter.read() - before;
        // An exec and the start of a shell: dozens of calls that the parent alone does not make.
        assert!((30..5000).contains(&counted), "{}: {counted}", counter.method());
        drop(counter);
        subject.finish();
    });
}

#[test]
fn attaches_and_lets_go_again_and_again() {
    with_each_method(|attach| {
        let mut subject = Subject::start();
        for _ in 0..10 {
            let counter = attach(subject.child.id()).unwrap();
            subject.tell("main");
            assert!(counter.read() >= 1000);
        }
        subject.finish();
    });
}

#[test]
fn the_end_of_a_counted_process_stays_with_its_parent() {
    with_each_method(|attach| {
        for kill in [false, true] {
            let mut subject = Subject::start();
            let counter = attach(subject.child.id()).unwrap();
            if kill {
                subject.child.kill().unwrap();
            } else {
                writeln!(subject.input, "end").unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
            let began = Instant::now();
            drop(counter);
            assert!(began.elapsed() < Duration::from_millis(900));
            assert_eq!(subject.child.wait().unwrap().success(), !kill);
        }
    });
}

#[test]
fn no_such_process() {
    let error = SyscallCounter::attach(u32::MAX / 4).err().unwrap();
    assert!(error.to_string().contains("no process"), "{error}");
}

#[test]
fn attach_says_which_method_it_chose() {
    let subject = Subject::start();
    let counter = SyscallCounter::attach(subject.child.id()).unwrap();
    assert!(["perf", "ptrace"].contains(&counter.method()));
    drop(counter);
    subject.finish();
}
