//! Python's objects and calls, for the layers above. Nothing here knows the loop or asyncio.

pub mod address;
pub mod buffer;
pub mod bytes;
pub mod call;
pub mod cell;
pub mod descriptor;
pub mod ending;
pub mod errno;
pub mod instance;
pub mod make;
pub mod method;
pub mod unique;
