//! Python's objects and calls, as both layers above use them: knows neither the loop nor asyncio.

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
