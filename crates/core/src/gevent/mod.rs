//! A loop for gevent: what gevent calls an `ILoop`, on proact's scheduler. `hub_loop.rs` is the loop and owns what is scheduled,
//! `turn.rs` runs it, `watcher.rs` is a watcher of any kind, `kinds.rs` the kinds that have methods of their own, `polls.rs` the
//! fds that are watched, `signals.rs` catches signals. `sockets.rs` has the hot methods of gevent's sockets, whose greenlets wait
//! by `hub_wait.rs` and `waiting.rs`. `python/proact/green/gevent_loop.py` completes the loop in Python.
//!
//! A callback of gevent's switches to another greenlet, and greenlet then copies away the C stack below the hub. So nothing here
//! holds a cell, a lock or memory that the kernel may write to while Python runs: each function takes what it needs, lets go, and
//! calls. Whoever holds the cell of a watcher or of a poll takes no other one; the loop's comes before theirs, and the engine's
//! before a poll's.

pub mod callback;
pub mod heap;
pub mod hub_loop;
pub mod hub_wait;
pub mod kinds;
pub mod polls;
pub mod signals;
pub mod sockets;
mod turn;
pub mod waiting;
pub mod watcher;
