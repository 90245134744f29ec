//! Socket addresses: between Python's tuples and the kernel's structures.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use proact_driver::{Call, Driver};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::py::bytes::copy_bytes;
use crate::py::make::{Int, Text, name, py_error, tuple};

/// A `sockaddr` of any family.
#[derive(Clone)]
pub struct Address {
    pub storage: libc::sockaddr_storage,
    pub len: libc::socklen_t,
}

/// The two addresses of a connection, in little memory: each connection keeps them.
pub enum Ends {
    V4 {
        local: SocketAddrV4,
        peer: SocketAddrV4,
    },
    /// The bytes of the kernel's structures, without their unused ends: for IPv6 half the size of two `Address`es.
    Other(Box<[Option<Box<[u8]>>; 2]>),
}

impl Ends {
    pub fn of(driver: &mut dyn Driver, fd: i32) -> Ends {
        let ends = [Address::of_socket(driver, fd), Address::of_peer(driver, fd)];
        if let [Some(local), Some(peer)] = ends.each_ref().map(|end| end.as_ref().and_then(Address::v4)) {
            return Ends::V4 { local, peer };
        }
        Ends::Other(Box::new(
            ends.map(|end| end.map(|address| address.bytes().into())),
        ))
    }

    /// The local address; `None` if the socket had none.
    pub fn local(&self) -> Option<Address> {
        match self {
            Ends::V4 { local, .. } => Some(Address::from_socket(SocketAddr::V4(*local))),
            Ends::Other(ends) => ends[0].as_deref().map(Address::from_bytes),
        }
    }

    /// The peer's address; `None` if the socket was no longer connected.
    pub fn peer(&self) -> Option<Address> {
        match self {
            Ends::V4 { peer, .. } => Some(Address::from_socket(SocketAddr::V4(*peer))),
            Ends::Other(ends) => ends[1].as_deref().map(Address::from_bytes),
        }
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Address {
    fn empty() -> Address {
        // SAFETY: zeros are a value of sockaddr_storage.
        let storage = unsafe { std::mem::zeroed() };
        Address { storage, len: 0 }
    }

    /// Room for any address, with the size of that room.
    pub fn room() -> Address {
        let mut address = Address::empty();
        address.len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        address
    }

    fn bytes(&self) -> &[u8] {
        let len = (self.len as usize).min(size_of::<libc::sockaddr_storage>());
        // SAFETY: plain memory of at least this length, all of it set.
        unsafe { std::slice::from_raw_parts((&raw const self.storage).cast(), len) }
    }

    fn write<T>(value: T) -> Address {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        let mut address = Address::empty();
        // SAFETY: the storage is large and aligned enough for every sockaddr.
        unsafe { (&raw mut address.storage).cast::<T>().write(value) };
        address.len = size_of::<T>() as libc::socklen_t;
        address
    }

    /// Restores an address from its bytes.
    fn from_bytes(bytes: &[u8]) -> Address {
        let mut address = Address::empty();
        let len = bytes.len().min(size_of::<libc::sockaddr_storage>());
        // SAFETY: the storage is at least as long, and any bytes are a value of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut address.storage).cast(), len) };
        address.len = len as libc::socklen_t;
        address
    }

    fn v4(&self) -> Option<SocketAddrV4> {
        (self.family() == libc::AF_INET).then(|| {
            // SAFETY: the family says so.
            let v4 = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in>() };
            SocketAddrV4::new(v4.sin_addr.s_addr.to_ne_bytes().into(), u16::from_be(v4.sin_port))
        })
    }

    fn from_socket(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(v4) => Address::write(libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Address::write(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo().to_be(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    fn from_path(path: &[u8]) -> PyResult<Address> {
        // SAFETY: zeros are a value of sockaddr_un.
        let mut unix: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        unix.sun_family = libc::AF_UNIX as u16;
        // An abstract name (first byte zero) may fill the array, a path leaves room for its end.
        let limit = unix.sun_path.len() - usize::from(path.first() != Some(&0));
        if path.len() > limit {
            return Err(py_error::<PyOSError>("AF_UNIX path too long"));
        }
        for (place, byte) in unix.sun_path.iter_mut().zip(path) {
            *place = *byte as libc::c_char;
        }
        let header = std::mem::offset_of!(libc::sockaddr_un, sun_path);
        let end = usize::from(path.first().is_some_and(|first| *first != 0));
        let mut address = Address::write(unix);
        address.len = (header + path.len() + end) as libc::socklen_t;
        Ok(address)
    }

    /// Reads a Python address of a family; hosts are literal (already resolved).
    ///
    /// # Errors
    /// `TypeError` and `ValueError` for what is no address, `OSError` for a path that is too long.
    pub fn parse(family: i32, address: &Bound<'_, PyAny>) -> PyResult<Address> {
        if family == libc::AF_UNIX {
            if let Ok(bytes) = address.cast::<PyBytes>() {
                return Address::from_path(bytes.as_bytes());
            }
            let path = address
                .py()
                .import(name!("os"))?
                .call_method1(name!("fsencode"), (address,))?;
            return Address::from_path(path.cast::<PyBytes>()?.as_bytes());
        }
        let name = if family == libc::AF_INET6 {
            "AF_INET6"
        } else {
            "AF_INET"
        };
        let Ok(tuple) = address.cast::<PyTuple>() else {
            let kind = address.get_type().name()?;
            let message = format!("{name} address must be tuple, not {kind}");
            return Err(py_error::<PyTypeError>(message));
        };
        if tuple.len() < 2 {
            let message = format!("{name} address must be a tuple of a host and a port");
            return Err(py_error::<PyTypeError>(message));
        }
        let (host, port): (String, u16) = (tuple.get_item(0)?.extract()?, tuple.get_item(1)?.extract()?);
        let host = match host.as_str() {
            "" => "0.0.0.0".to_owned(),
            "<broadcast>" if family == libc::AF_INET => "255.255.255.255".to_owned(),
            _ => host,
        };
        let bare = host.split('%').next().unwrap_or(&host);
        let ip: IpAddr = bare
            .parse()
            .map_err(|_| py_error::<PyValueError>(format!("not an IP address: {host:?}")))?;
        let item = |index: usize| -> PyResult<u32> {
            if tuple.len() > index {
                tuple.get_item(index)?.extract()
            } else {
                Ok(0)
            }
        };
        Ok(Address::from_socket(match (family, ip) {
            (libc::AF_INET, IpAddr::V4(ip)) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
            (libc::AF_INET6, IpAddr::V6(ip)) => {
                SocketAddr::V6(SocketAddrV6::new(ip, port, item(2)?, item(3)?))
            }
            (libc::AF_INET6, IpAddr::V4(ip)) if ip.is_unspecified() => {
                SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))
            }
            _ => {
                return Err(py_error::<PyValueError>(format!(
                    "{host:?} is no address of family {family}"
                )));
            }
        }))
    }

    /// As [`Address::parse`], but the host may be a name. The lookup blocks, as in `socket.sendto`.
    ///
    /// # Errors
    /// As [`Address::parse`]; `OSError` for a name that is not known.
    pub fn resolve(family: i32, address: &Bound<'_, PyAny>) -> PyResult<Address> {
        let py = address.py();
        match Address::parse(family, address) {
            Err(error)
                if error.is_instance_of::<PyValueError>(py)
                    && matches!(family, libc::AF_INET | libc::AF_INET6) =>
            {
                let (host, port) = (address.get_item(0)?, address.get_item(1)?);
                let found = py.import(name!("_socket"))?.call_method1(
                    name!("getaddrinfo"),
                    (host, port, Int::new(family), Int::new(libc::SOCK_DGRAM)),
                )?;
                Address::parse(family, &found.get_item(0)?.get_item(4)?)
            }
            outcome => outcome,
        }
    }

    /// The address of a socket's peer, if it has one.
    pub fn of_peer(driver: &mut dyn Driver, fd: i32) -> Option<Address> {
        let mut address = Address::room();
        let (room, len) = (&mut address.storage, &mut address.len);
        (driver.call(Call::PeerAddress { fd, room, len }) == 0).then_some(address)
    }

    /// A socket's own address.
    pub fn of_socket(driver: &mut dyn Driver, fd: i32) -> Option<Address> {
        let mut address = Address::room();
        let (room, len) = (&mut address.storage, &mut address.len);
        (driver.call(Call::LocalAddress { fd, room, len }) == 0).then_some(address)
    }

    pub fn family(&self) -> i32 {
        if self.len == 0 {
            // The sender is a Unix socket without a name.
            return libc::AF_UNSPEC;
        }
        i32::from(self.storage.ss_family)
    }

    /// As Python's `socket` shows it: a tuple, or for Unix sockets a path.
    pub fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(v4) = self.v4() {
            let host = Text(v4.ip().to_string()).into_pyobject(py)?.into_any();
            let port = Int::new(v4.port()).into_pyobject(py)?.into_any();
            return Ok(tuple(py, &[host, port])?.into_any());
        }
        let storage = &raw const self.storage;
        match self.family() {
            libc::AF_INET6 => {
                // SAFETY: the family says so.
                let v6 = unsafe { &*storage.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr).to_string();
                let int = |number: u32| PyResult::Ok(Int::new(number).into_pyobject(py)?.into_any());
                let items = [
                    Text(ip).into_pyobject(py)?.into_any(),
                    int(u16::from_be(v6.sin6_port).into())?,
                    int(u32::from_be(v6.sin6_flowinfo))?,
                    int(v6.sin6_scope_id)?,
                ];
                Ok(tuple(py, &items)?.into_any())
            }
            libc::AF_UNIX => {
                let header = std::mem::offset_of!(libc::sockaddr_un, sun_path);
                let count = (self.len as usize).saturating_sub(header);
                // SAFETY: the family says so, and `len` bytes were written.
                let path: &[u8] =
                    unsafe { std::slice::from_raw_parts(storage.cast::<u8>().add(header), count) };
                if path.first() == Some(&0) {
                    return Ok(copy_bytes(py, path)?.into_any());
                }
                let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
                py.import(name!("os"))?
                    .call_method1(name!("fsdecode"), (copy_bytes(py, path)?,))
            }
            _ => Ok(py.None().into_bound(py)),
        }
    }
}
