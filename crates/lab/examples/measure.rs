//! Measures the bare servers: server pinned to core 0, load to core 1, interleaved rounds, medians.
//!
//!     cargo run --release -p proact-lab --example measure [ROUNDS [SECONDS]]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proact_lab::bare::{Echo, listen, serve_epoll, serve_threads, serve_uring};
use proact_lab::{LoadSpec, cpu, load};

type Serve = fn(OwnedFd, &AtomicBool) -> std::io::Result<()>;
type Error = Box<dyn std::error::Error>;

/// Messages per second, the server's and the load's CPU microseconds per message, p50 and p99 in
/// microseconds.
struct Figures([f64; 5]);

fn pin(core: usize) {
    // SAFETY: an all-zero cpu_set_t is the empty set; the calls only read and write that set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

fn process_time() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid, writable timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn measure(serve: Serve, size: usize, connections: usize, seconds: f64) -> Result<Figures, Error> {
    let listener = std::net::TcpListener::from(listen("127.0.0.1:0".parse()?)?);
    let mut spec = LoadSpec::new(listener.local_addr()?);
    (spec.size, spec.connections) = (size, connections);
    (spec.warmup, spec.duration) = (Duration::from_millis(200), Duration::from_secs_f64(seconds));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            pin(0);
            serve(listener.into(), &stop)
        });
        pin(1);
        let total = AtomicU64::new(0);
        let before = (process_time(), cpu::thread_time());
        let report = load::run(&spec, &total, &AtomicBool::new(false));
        // All threads of this process but the load's: with a thread a connection the server is many.
        let server_cpu = (process_time() - before.0).saturating_sub(cpu::thread_time() - before.1);
        stop.store(true, Ordering::Relaxed);
        server.join().map_err(|_| "the server panicked")??;
        let report = report?;
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Ok(Figures([
            report.rate(),
            server_cpu.as_secs_f64() * 1e6 / total.into_inner() as f64,
            report.cpu_seconds * 1e6 / report.messages as f64,
            micros(report.latency.p50),
            micros(report.latency.p99),
        ]))
    })
}

fn median(rounds: &[Figures], which: usize) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(|figures| figures.0[which]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let rounds: usize = args.next().map_or(Ok(5), |text| text.parse())?;
    let seconds: f64 = args.next().map_or(Ok(1.0), |text| text.parse())?;
    let servers: [(&str, Serve); 3] = [
        ("epoll", serve_epoll::<Echo>),
        ("io_uring", serve_uring::<Echo>),
        ("threads", serve_threads::<Echo>),
    ];
    println!("size    conns  server    msgs/s   server us/msg   load us/msg   p50 us   p99 us");
    for (size, connections) in [
        (1024, 1),
        (1024, 100),
        (1024, 1000),
        (16_384, 100),
        (65_536, 1),
        (65_536, 100),
        (1 << 20, 10),
    ] {
        let mut all: Vec<Vec<Figures>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (kept, (_, serve)) in all.iter_mut().zip(&servers) {
                kept.push(measure(*serve, size, connections, seconds)?);
            }
        }
        for (kept, (name, _)) in all.iter().zip(&servers) {
            let m = |which| median(kept, which);
            println!(
                "{size:<7} {connections:<6} {name:<8} {:>8.0} {:>12.2} {:>13.2} {:>11.1} {:>8.1}",
                m(0),
                m(1),
                m(2),
                m(3),
                m(4)
            );
        }
    }
    Ok(())
}
