//! Python's objects and calls, for the layers above. Nothing here knows the loop or asyncio.

pub mod address;
pub mod audit;
pub mod buffer;
pub mod bytes;
pub mod call;
pub mod cell;
pub mod coroutine;
pub mod descriptor;
pub mod ending;
pub mod errno;
pub mod greenlet;
pub mod instance;
pub mod make;
pub mod method;
pub mod native_method;
#[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
pub mod shared_class;
pub mod slot;
pub mod status;
pub mod unique;
