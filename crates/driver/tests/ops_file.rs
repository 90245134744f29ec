//! Each op on files. On readiness engines they go to the pool, and must behave in the same way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use common::*;
use proact_driver::{Engine, Loan, Op, ops, syscalls};

fn open_at(file: &Path, flags: i32) -> Op {
    Op::OpenAt(ops::OpenAt {
        dir: libc::AT_FDCWD,
        path: path(file),
        flags,
        mode: 0o600,
        waits: false,
    })
}

fn opened(rig: &mut Rig, file: &Path, flags: i32) -> OwnedFd {
    let fd = rig.run(open_at(file, flags));
    assert!(fd >= 0, "{}: {fd}", rig.engine.name());
    // SAFETY: a fresh fd.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn splice(from: &impl AsRawFd, from_offset: i64, to: &impl AsRawFd, to_offset: i64, len: u32) -> Op {
    Op::Splice(ops::Splice {
        from: from.as_raw_fd(),
        from_offset,
        to: to.as_raw_fd(),
        to_offset,
        len,
        flags: 0,
    })
}

on_every_engine! {
    fn open_write_read_close(rig) {
        let directory = Directory::new();
        let file = directory.0.join("file");
        let fd = opened(&mut rig, &file, libc::O_RDWR | libc::O_CREAT);
        // SAFETY: fcntl only reads the fd's flags.
        assert_ne!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) } & libc::FD_CLOEXEC, 0);
        assert_eq!(rig.run(write(&fd, bytes(b"0123456789"), 0)), 10);
        assert_eq!(rig.run(write(&fd, bytes(b"xx"), 4)), 2);
        let memory = buffer(16);
        assert_eq!(rig.run(read(&fd, memory, 0)), 10);
        assert_eq!(&memory[..10], b"0123xx6789");
        assert_eq!(rig.run(read(&fd, memory, 8)), 2);
        assert_eq!(rig.run(read(&fd, memory, 10)), 0);
        assert_eq!(rig.run(read(&fd, memory, 1000)), 0);
        assert_eq!(rig.run(Op::Fsync(ops::Fsync { fd: fd.as_raw_fd(), data_only: false })), 0);
        assert_eq!(rig.run(Op::Fsync(ops::Fsync { fd: fd.as_raw_fd(), data_only: true })), 0);
        let raw = apart(fd);
        assert_eq!(rig.run(Op::Close(ops::Close { fd: raw })), 0);
        assert!(!is_open(raw));
        assert_eq!(std::fs::read(&file).unwrap(), b"0123xx6789");
    }

    fn errors_of_files(rig) {
        let directory = Directory::new();
        let missing = directory.0.join("missing");
        assert_eq!(rig.run(open_at(&missing, libc::O_RDONLY)), -libc::ENOENT);
        assert_eq!(rig.run(open_at(&directory.0, libc::O_WRONLY)), -libc::EISDIR);
        std::fs::write(directory.0.join("plain"), b"x").unwrap();
        assert_eq!(rig.run(open_at(&directory.0.join("plain/below"), libc::O_RDONLY)), -libc::ENOTDIR);
        let fd = opened(&mut rig, &directory.0.join("plain"), libc::O_RDONLY);
        assert_eq!(rig.run(write(&fd, bytes(b"x"), 0)), -libc::EBADF);
        let folder = opened(&mut rig, &directory.0, libc::O_RDONLY | libc::O_DIRECTORY);
        assert_eq!(rig.run(read(&folder, buffer(1), 0)), -libc::EISDIR);
        assert_eq!(rig.run(read(&fd, buffer(1), i64::MIN)), -libc::EINVAL);
    }

    fn open_relative_to_a_directory(rig) {
        let directory = Directory::new();
        std::fs::write(directory.0.join("inside"), b"found").unwrap();
        let folder = opened(&mut rig, &directory.0, libc::O_RDONLY | libc::O_DIRECTORY);
        let fd = rig.run(Op::OpenAt(ops::OpenAt {
            dir: folder.as_raw_fd(),
            path: path(Path::new("inside")),
            flags: libc::O_RDONLY,
            mode: 0,
            waits: false,
        }));
        // SAFETY: a fresh fd.
        let mut file = unsafe { File::from_raw_fd(fd) };
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "found");
    }

    fn vectors_at_offsets(rig) {
        let directory = Directory::new();
        let fd = opened(&mut rig, &directory.0.join("file"), libc::O_RDWR | libc::O_CREAT);
        let out = vectors(&mut [bytes(b"abc"), bytes(b""), bytes(b"defgh")]);
        let (fd_number, count) = (fd.as_raw_fd(), 3);
        assert_eq!(rig.run(Op::Writev(ops::Writev { fd: fd_number, iov: out.as_ptr(), count, offset: 2 })), 8);
        let [first, second] = [buffer(4), buffer(32)];
        let memory = (first.as_ptr(), second.as_ptr());
        let into = vectors(&mut [first, second]);
        assert_eq!(rig.run(Op::Readv(ops::Readv { fd: fd_number, iov: into.as_ptr(), count: 2, offset: 0 })), 10);
        // SAFETY: the memory is leaked and has these lengths.
        let (first, second) = unsafe {
            (std::slice::from_raw_parts(memory.0, 4), std::slice::from_raw_parts(memory.1, 6))
        };
        assert_eq!([first, second].concat(), b"\0\0abcdefgh");
        assert_eq!(rig.run(Op::Readv(ops::Readv { fd: fd_number, iov: into.as_ptr(), count: 2, offset: 10 })), 0);
    }

    fn the_current_position_moves(rig) {
        let directory = Directory::new();
        let fd = opened(&mut rig, &directory.0.join("file"), libc::O_RDWR | libc::O_CREAT);
        assert_eq!(rig.run(write(&fd, bytes(b"hello "), -1)), 6);
        assert_eq!(rig.run(write(&fd, bytes(b"world"), -1)), 5);
        let memory = buffer(16);
        assert_eq!(rig.run(read(&fd, memory, -1)), 0);
        assert_eq!(rig.run(read(&fd, memory, 0)), 11);
        assert_eq!(&memory[..11], b"hello world");
    }

    fn rename_within_and_between_directories(rig) {
        let (here, there) = (Directory::new(), Directory::new());
        std::fs::write(here.0.join("old"), b"kept").unwrap();
        let folder = opened(&mut rig, &there.0, libc::O_RDONLY | libc::O_DIRECTORY);
        let rename = |from: &Path, to_dir, to: &Path, flags| {
            let from_dir = libc::AT_FDCWD;
            Op::RenameAt(ops::RenameAt { from_dir, from: path(from), to_dir, to: path(to), flags })
        };
        let new = here.0.join("new");
        assert_eq!(rig.run(rename(&here.0.join("old"), libc::AT_FDCWD, &new, 0)), 0);
        assert_eq!(rig.run(rename(&new, folder.as_raw_fd(), Path::new("moved"), 0)), 0);
        assert_eq!(std::fs::read(there.0.join("moved")).unwrap(), b"kept");
        assert_eq!(rig.run(rename(&new, libc::AT_FDCWD, &new, 0)), -libc::ENOENT);
        std::fs::write(&new, b"another").unwrap();
        let flags = libc::RENAME_NOREPLACE;
        assert_eq!(rig.run(rename(&new, folder.as_raw_fd(), Path::new("moved"), flags)), -libc::EEXIST);
    }

    fn names_come_and_go(rig) {
        let directory = Directory::new();
        let (dir, at) = (libc::AT_FDCWD, |name: &str| path(&directory.0.join(name)));
        let mkdir = Op::MkdirAt(ops::MkdirAt { dir, path: at("folder"), mode: 0o700 });
        assert_eq!(rig.run(mkdir), 0);
        assert_eq!(rig.run(mkdir), -libc::EEXIST);
        std::fs::write(directory.0.join("folder/file"), b"found").unwrap();
        let link = Op::LinkAt(ops::LinkAt { from_dir: dir, from: at("folder/file"), to_dir: dir, to: at("second"), flags: 0 });
        assert_eq!(rig.run(link), 0);
        assert_eq!(rig.run(link), -libc::EEXIST);
        let symlink = Op::SymlinkAt(ops::SymlinkAt { target: path(Path::new("folder/file")), dir, path: at("third") });
        assert_eq!(rig.run(symlink), 0);
        assert_eq!(rig.run(symlink), -libc::EEXIST);
        for name in ["second", "third"] {
            assert_eq!(std::fs::read(directory.0.join(name)).unwrap(), b"found");
        }
        let unlink = |name, flags| Op::UnlinkAt(ops::UnlinkAt { dir, path: at(name), flags });
        assert_eq!(rig.run(unlink("folder", 0)), -libc::EISDIR);
        assert_eq!(rig.run(unlink("folder", libc::AT_REMOVEDIR)), -libc::ENOTEMPTY);
        for name in ["folder/file", "second", "third"] {
            assert_eq!(rig.run(unlink(name, 0)), 0);
        }
        assert_eq!(rig.run(unlink("second", 0)), -libc::ENOENT);
        assert_eq!(rig.run(unlink("folder", libc::AT_REMOVEDIR)), 0);
        assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 0);
    }

    fn a_file_is_written_and_flushed(rig) {
        let directory = Directory::new();
        let file = directory.0.join("file");
        let fd = opened(&mut rig, &file, libc::O_RDWR | libc::O_CREAT);
        let failure = AtomicI32::new(1);
        let write = |fd: RawFd, buffer: &[u8], offset| Op::WriteFsync(ops::WriteFsync {
            fd, buf: buffer.as_ptr(), len: buffer.len(), offset, data_only: offset != -1, failure: failure.as_ptr(),
        });
        let taken = || failure.swap(1, Ordering::Relaxed);
        assert_eq!((rig.run(write(fd.as_raw_fd(), b"12345", -1)), taken()), (5, 0));
        assert_eq!((rig.run(write(fd.as_raw_fd(), b"67", 3)), taken()), (2, 0));
        assert_eq!((rig.run(write(fd.as_raw_fd(), b"89", -1)), taken()), (2, 0));
        assert_eq!((rig.run(write(fd.as_raw_fd(), b"", 0)), taken()), (0, 0));
        assert_eq!(std::fs::read(&file).unwrap(), b"1236789");
        let read_only = opened(&mut rig, &file, libc::O_RDONLY);
        assert_eq!((rig.run(write(read_only.as_raw_fd(), b"x", 0)), taken()), (-libc::EBADF, 1));
        // A pipe takes the bytes, and can't be flushed.
        let (_reader, writer) = pipe(0);
        assert_eq!((rig.run(write(writer.as_raw_fd(), b"x", -1)), taken()), (1, -libc::EINVAL));
        assert_eq!((rig.run(write(writer.as_raw_fd(), b"", -1)), taken()), (-libc::EINVAL, 1));
    }

    fn a_record_is_appended_and_flushed(rig) {
        let directory = Directory::new();
        let file = directory.0.join("file");
        let failure = AtomicI32::new(1);
        let append = |path: &CString, buffer: &[u8]| Op::AppendFsync(ops::AppendFsync {
            dir: libc::AT_FDCWD, path: path.as_ptr(), buf: buffer.as_ptr(), len: buffer.len(), failure: failure.as_ptr(),
        });
        let named = |path: &std::path::Path| CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let taken = || failure.swap(1, Ordering::Relaxed);
        let name = named(&file);
        assert_eq!((rig.run(append(&name, b"x")), taken()), (-libc::ENOENT, 1));
        std::fs::write(&file, b"12").unwrap();
        for record in [b"345".as_slice(), b"", b"6"] {
            assert_eq!((rig.run(append(&name, record)), taken()), (record.len() as i32, 0));
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"123456");
        // Neither a directory nor a FIFO without a reader is opened.
        assert_eq!((rig.run(append(&named(&directory.0), b"x")), taken()), (-libc::EINVAL, 1));
        let fifo = named(&directory.0.join("fifo"));
        // SAFETY: a path that ends in a zero.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        assert_eq!((rig.run(append(&fifo, b"x")), taken()), (-libc::EINVAL, 1));
        assert_eq!(rig.run(append(&named(Path::new("/dev/null")), b"x")), -libc::EINVAL);
    }

    /// The thread that has flushed a file looks for the next op for a while: ops come in that while, at its end, several at a time and
    /// long after it, and some are cancelled.
    fn flushes_come_at_any_moment(rig) {
        let directory = Directory::new();
        let fd = opened(&mut rig, &directory.0.join("file"), libc::O_RDWR | libc::O_CREAT);
        let failures: Vec<AtomicI32> = (0..4).map(|_| AtomicI32::new(1)).collect();
        let flush = |failure: &AtomicI32| Op::WriteFsync(ops::WriteFsync {
            fd: fd.as_raw_fd(), buf: b"1".as_ptr(), len: 1, offset: 0, data_only: true, failure: failure.as_ptr(),
        });
        for round in 0..400_u64 {
            let count = if round % 7 == 0 { 4 } else { 1 };
            let tokens: Vec<_> = failures[..count].iter().map(|failure| rig.submit(flush(failure))).collect();
            if round % 11 == 0 {
                rig.cancel(tokens[0]);
                assert!([1, CANCELED].contains(&rig.result(tokens[0])));
            }
            for token in tokens.into_iter().skip(usize::from(round % 11 == 0)) {
                assert_eq!(rig.result(token), 1);
            }
            std::thread::sleep(Duration::from_micros(round % 20 * 10));
        }
    }

    fn a_file_changes_its_size(rig) {
        let directory = Directory::new();
        let file = directory.0.join("file");
        let fd = opened(&mut rig, &file, libc::O_RDWR | libc::O_CREAT);
        assert_eq!(rig.run(write(&fd, bytes(b"0123456789"), 0)), 10);
        let number = fd.as_raw_fd();
        assert_eq!(rig.run(Op::Truncate(ops::Truncate { fd: number, len: 4 })), 0);
        assert_eq!(std::fs::read(&file).unwrap(), b"0123");
        assert_eq!(rig.run(Op::Truncate(ops::Truncate { fd: number, len: 6 })), 0);
        assert_eq!(std::fs::read(&file).unwrap(), b"0123\0\0");
        assert_eq!(rig.run(Op::Truncate(ops::Truncate { fd: number, len: -1 })), -libc::EINVAL);
        assert_eq!(rig.run(Op::Allocate(ops::Allocate { fd: number, mode: 0, offset: 6, len: 10 })), 0);
        assert_eq!(std::fs::read(&file).unwrap().len(), 16);
        assert_eq!(rig.run(Op::Allocate(ops::Allocate { fd: number, mode: 0, offset: 0, len: 0 })), -libc::EINVAL);
        let read_only = opened(&mut rig, &file, libc::O_RDONLY);
        let truncate = Op::Truncate(ops::Truncate { fd: read_only.as_raw_fd(), len: 0 });
        assert_eq!(rig.run(truncate), -libc::EINVAL);
    }

    fn reads_go_into_lent_memory(rig) {
        let directory = Directory::new();
        let file = directory.0.join("file");
        std::fs::write(&file, pattern(10_000, 1)).unwrap();
        let fd = opened(&mut rig, &file, libc::O_RDONLY);
        let loans = [Loan::new(8192).unwrap(), Loan::new(8192).unwrap()];
        for (loan, offset, count) in [(&loans[0], 0, 8192), (&loans[1], 4096, 10_000 - 4096), (&loans[0], 20_000, 0)] {
            let read = ops::Read { fd: fd.as_raw_fd(), buf: loan.ptr(), len: 8192, offset };
            assert_eq!(rig.run(Op::Read(read)), count, "{}", rig.engine.name());
        }
        for (loan, offset, count) in [(&loans[0], 0, 8192), (&loans[1], 4096, 10_000 - 4096)] {
            // SAFETY: nobody writes into it any more.
            let got = unsafe { std::slice::from_raw_parts(loan.ptr(), count) };
            assert_eq!(got, &pattern(10_000, 1)[offset..offset + count]);
        }
        // At the current position of a pipe, too.
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"through a pipe").unwrap();
        let read = ops::Read { fd: reader.as_raw_fd(), buf: loans[0].ptr(), len: 8192, offset: -1 };
        assert_eq!(rig.run(Op::Read(read)), 14);
    }

    fn an_attempt_reads_what_is_cached(rig) {
        let directory = Directory::new();
        let file = directory.0.join("file");
        std::fs::write(&file, pattern(10_000, 1)).unwrap();
        let fd = opened(&mut rig, &file, libc::O_RDONLY);
        let memory = buffer(8192);
        let (number, buf) = (fd.as_raw_fd(), memory.as_mut_ptr());
        let at = |offset| Op::Read(ops::Read { fd: number, buf, len: 8192, offset });
        // SAFETY: the memory is leaked.
        let mut attempt = |offset| unsafe { rig.driver.attempt(&at(offset)) };
        let [whole, rest, beyond] = [0, 8192, 20_000].map(&mut attempt);
        // A file system that does not know answers AGAIN.
        if whole != syscalls::AGAIN {
            assert_eq!((whole, rest, beyond), (8192, 10_000 - 8192, 0), "{}", rig.engine.name());
        }
        // What is not cached is left to others. (The kernel may decline to drop it.)
        std::fs::File::open(&file).unwrap().sync_all().unwrap();
        // SAFETY: the call takes no memory.
        unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        // SAFETY: as above.
        let dropped = unsafe { rig.driver.attempt(&at(0)) };
        assert!(dropped == syscalls::AGAIN || dropped > 0, "{dropped}");
        assert_eq!(rig.run(at(0)), 8192);
    }

    fn statx_tells_the_size(rig) {
        let directory = Directory::new();
        let file = directory.0.join("file");
        std::fs::write(&file, vec![1; 12345]).unwrap();
        // SAFETY: all zeros is a valid statx.
        let status: &'static mut libc::statx = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
        let at = |path| Op::Statx(ops::Statx { dir: libc::AT_FDCWD, path, flags: 0, mask: libc::STATX_SIZE, buf: std::ptr::from_ref(status).cast_mut() });
        assert_eq!(rig.run(at(path(&file))), 0);
        // SAFETY: the op is over. The read is volatile because the kernel wrote the memory through another pointer.
        assert_eq!(unsafe { std::ptr::read_volatile(&raw const status.stx_size) }, 12345);
        assert_eq!(rig.run(at(path(&directory.0.join("missing")))), -libc::ENOENT);
    }

    fn splice_between_file_pipe_and_socket(rig) {
        let directory = Directory::new();
        let content = pattern(30_000, 3);
        std::fs::write(directory.0.join("from"), &content).unwrap();
        let from = opened(&mut rig, &directory.0.join("from"), libc::O_RDONLY);
        let to = opened(&mut rig, &directory.0.join("to"), libc::O_RDWR | libc::O_CREAT);
        for flags in [0, libc::O_NONBLOCK] {
            let (reader, writer) = pipe(flags);
            let mut moved = 0;
            while moved < content.len() {
                let count = rig.run(splice(&from, moved as i64, &writer, -1, 16384));
                assert!(count > 0, "{}: {count}", rig.engine.name());
                assert_eq!(rig.run(splice(&reader, -1, &to, moved as i64, count as u32)), count);
                moved += count as usize;
            }
            assert_eq!(std::fs::read(directory.0.join("to")).unwrap(), content);

            // From a pipe to a socket.
            let (a, b) = tcp_pair();
            assert_eq!(rig.run(splice(&from, 0, &writer, -1, 5000)), 5000);
            assert_eq!(rig.run(splice(&reader, -1, &a, -1, 5000)), 5000);
            let memory = buffer(8192);
            let mut received = Vec::new();
            while received.len() < 5000 {
                let count = rig.run(recv(&b, memory));
                received.extend_from_slice(&memory[..count as usize]);
            }
            assert_eq!(received, content[..5000]);

            // From a socket to a pipe, and at the end of the stream.
            (&b).write_all(b"from the socket").unwrap();
            assert_eq!(rig.run(splice(&a, -1, &writer, -1, 100)), 15);
            assert_eq!(rig.run(read(&reader, memory, -1)), 15);
            drop(b);
            assert_eq!(rig.run(splice(&a, -1, &writer, -1, 100)), 0);
            assert_eq!(rig.run(splice(&from, 0, &to, 0, 10)), -libc::EINVAL);
        }
    }

    fn splice_waits_for_either_side(rig) {
        let directory = Directory::new();
        let to = opened(&mut rig, &directory.0.join("to"), libc::O_RDWR | libc::O_CREAT);
        for flags in [0, libc::O_NONBLOCK] {
            let (reader, writer) = pipe(flags);
            let token = rig.submit(splice(&reader, -1, &to, 0, 100));
            rig.assert_pending(token);
            std::thread::sleep(std::time::Duration::from_millis(2));
            rig.assert_pending(token);
            assert_eq!(rig.run(write(&writer, bytes(b"late"), -1)), 4);
            assert_eq!(rig.result(token), 4);

            // The target can make a splice wait, too: a full pipe.
            let (full_reader, full_writer) = pipe(libc::O_NONBLOCK);
            let block = buffer(65536);
            assert_eq!(rig.run(write(&full_writer, block, -1)), 65536);
            let token = rig.submit(splice(&to, 0, &full_writer, -1, 4));
            rig.assert_pending(token);
            assert_eq!(rig.run(read(&full_reader, block, -1)), 65536);
            assert_eq!(rig.result(token), 4);
        }
    }

    fn many_at_once(rig) {
        let directory = Directory::new();
        let file = directory.0.join("file");
        let content = pattern(400 * 100, 9);
        std::fs::write(&file, &content).unwrap();
        let fd = opened(&mut rig, &file, libc::O_RDONLY);
        let reads: Vec<_> = (0..400)
            .map(|index| {
                let memory = buffer(100);
                (rig.submit(read(&fd, memory, index * 100)), &*memory)
            })
            .collect();
        for (index, (token, memory)) in reads.into_iter().enumerate() {
            assert_eq!(rig.result(token), 100);
            assert_eq!(memory, &content[index * 100..][..100]);
        }
    }

    fn a_file_is_always_ready(rig) {
        // epoll can't watch a regular file (EPERM), and the other engines report it as ready. None of them waits.
        let file = File::open("/proc/self/exe").unwrap();
        let result = rig.run(Op::Poll(ops::Poll { fd: file.as_raw_fd(), events: POLLIN }));
        if rig.engine == Engine::Epoll {
            assert_eq!(result, -libc::EPERM);
        } else {
            assert_ne!(result & POLLIN as i32, 0);
        }
    }

    fn close_waits_for_the_ops_of_its_fd(rig) {
        // Opening a fifo blocks until another process opens the other end. On readiness engines it blocks a pool
        // thread that nothing can interrupt, while the test closes the directory fd that the op uses.
        let directory = Directory::new();
        let fifo = directory.0.join("fifo");
        // SAFETY: a path that ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(path(&fifo), 0o600) }, 0);
        let folder = opened(&mut rig, &directory.0, libc::O_RDONLY | libc::O_DIRECTORY);
        let dir = apart(folder);
        let open = rig.submit(Op::OpenAt(ops::OpenAt { dir, path: path(Path::new("fifo")), flags: libc::O_RDONLY, mode: 0, waits: false }));
        // For a ring the kernel first tries with O_NONBLOCK, which opens a fifo for reading at once.
        if !rig.is_uring() {
            rig.assert_pending(open);
            wait_for_an_open();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        let close = rig.submit(Op::Close(ops::Close { fd: dir }));
        rig.turn(Some(std::time::Duration::from_millis(20)));
        if !rig.is_uring() {
            rig.assert_pending(close);
            // The fd counts as closed already.
            assert_eq!(rig.run(Op::Close(ops::Close { fd: dir })), -libc::EBADF);
        }
        let other = File::options().read(true).write(true).open(&fifo).unwrap();
        let result = rig.result(open);
        if result >= 0 {
            // SAFETY: a fresh fd.
            drop(unsafe { OwnedFd::from_raw_fd(result) });
        } else {
            assert_eq!(result, CANCELED);
        }
        assert_eq!(rig.result(close), 0);
        assert!(!is_open(dir));
        drop(other);
        rig.cancel(open);
    }
}
