//! Redirects calls. Every loaded object calls libc through addresses in its global offset table, which the dynamic
//! linker has filled in. This file replaces them by the addresses of the wrappers.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;

use super::wrappers::{is_original, wrapper};

#[repr(C)]
struct Dyn {
    tag: i64,
    value: usize,
}

#[repr(C)]
struct Rela {
    offset: usize,
    info: u64,
    addend: i64,
}

#[repr(C)]
struct Sym {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;

/// The relocations that consist of a function's address (R_*_GLOB_DAT, R_*_JUMP_SLOT).
#[cfg(target_arch = "x86_64")]
const ADDRESSES: [u32; 2] = [6, 7];
#[cfg(target_arch = "aarch64")]
const ADDRESSES: [u32; 2] = [1025, 1026];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ADDRESSES: [u32; 0] = [];

/// Puts the wrappers' addresses into every table that does not have them yet.
pub(super) fn redirect() -> io::Result<()> {
    let mut outcome: io::Result<()> = if ADDRESSES.is_empty() {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    } else {
        Ok(())
    };
    // SAFETY: the callback gets `outcome`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(object), (&raw mut outcome).cast()) };
    outcome
}

unsafe extern "C" fn object(info: *mut libc::dl_phdr_info, _size: usize, outcome: *mut c_void) -> c_int {
    // SAFETY: the dynamic linker's structure is valid during the call.
    let info = unsafe { &*info };
    // SAFETY: `redirect` passes a pointer to its `outcome`.
    let outcome = unsafe { &mut *outcome.cast::<io::Result<()>>() };
    let name = if info.dlpi_name.is_null() {
        c""
    } else {
        // SAFETY: the string ends in a NUL.
        unsafe { CStr::from_ptr(info.dlpi_name) }
    };
    let name = name.to_string_lossy();
    // Calls of libc to itself stay as they are. The kernel's own object (vDSO) has no such table.
    let file = name.rsplit('/').next().unwrap_or_default();
    if outcome.is_ok()
        && !["libc.so", "ld-", "linux-vdso", "libdl."]
            .iter()
            .any(|own| file.starts_with(own))
    {
        // SAFETY: the dynamic linker's structure is valid during the call, and so are its headers.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        if let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC) {
            let base = info.dlpi_addr as usize;
            // SAFETY: the address is of the dynamic section of a loaded object.
            *outcome = unsafe { patch(base, (base + header.p_vaddr as usize) as *const Dyn) };
        }
    }
    0
}

/// # Safety
/// `dynamic` is the dynamic section of the object loaded at `base`.
unsafe fn patch(base: usize, mut dynamic: *const Dyn) -> io::Result<()> {
    let (mut strings, mut symbols) = (0, 0);
    let (mut plt, mut plt_size, mut rela, mut rela_size) = (0, 0, 0, 0);
    // glibc makes the addresses in the dynamic section absolute, except in a few objects.
    let absolute = |value: usize| if value < base { base + value } else { value };
    loop {
        // SAFETY: the section ends with a zero tag.
        let entry = unsafe { &*dynamic };
        match entry.tag {
            0 => break,
            DT_STRTAB => strings = absolute(entry.value),
            DT_SYMTAB => symbols = absolute(entry.value),
            DT_JMPREL => plt = absolute(entry.value),
            DT_PLTRELSZ => plt_size = entry.value,
            DT_RELA => rela = absolute(entry.value),
            DT_RELASZ => rela_size = entry.value,
            _ => {}
        }
        dynamic = dynamic.wrapping_add(1);
    }
    if strings == 0 || symbols == 0 {
        return Ok(());
    }
    for (table, size) in [(plt, plt_size), (rela, rela_size)] {
        if table == 0 {
            continue;
        }
        // SAFETY: the object itself states where its relocations are and how many there are.
        let entries = unsafe { std::slice::from_raw_parts(table as *const Rela, size / size_of::<Rela>()) };
        for entry in entries {
            if !ADDRESSES.contains(&(entry.info as u32)) {
                continue;
            }
            let index = (entry.info >> 32) as usize;
            // SAFETY: the index and the offset of the name are the object's own.
            let name = unsafe {
                let symbol = &*(symbols as *const Sym).add(index);
                CStr::from_ptr((strings + symbol.name as usize) as *const c_char)
            };
            if let Some(address) = stand_in(name) {
                write(base + entry.offset, address)?;
            }
        }
    }
    Ok(())
}

/// Stores an address in a table that may be read-only since the linker has filled it in (RELRO).
fn write(slot: usize, address: usize) -> io::Result<()> {
    // SAFETY: `slot` is an entry of a loaded object's table.
    if unsafe { *(slot as *const usize) } == address {
        return Ok(());
    }
    // SAFETY: sysconf takes no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let start = slot & !(page - 1);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a page of data, which stays readable. The entry is aligned, so it lies within one page.
    if unsafe { libc::mprotect(start as *mut c_void, page, protection) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the entry is writable now. Other threads read the old or the new address, and both make the call.
    unsafe { std::ptr::write_volatile(slot as *mut usize, address) };
    Ok(())
}

/// The address that replaces a symbol's: a call's wrapper, or one of the two functions below.
fn stand_in(symbol: &CStr) -> Option<usize> {
    match symbol.to_bytes() {
        b"dlopen" => Some(dlopen as *const () as usize),
        b"dlsym" => Some(dlsym as *const () as usize),
        _ => wrapper(symbol),
    }
}

/// Replaces `dlopen(3)`: redirects the calls of the loaded objects as well.
unsafe extern "C" fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: the caller's arguments.
    let handle = unsafe { real_dlopen()(file, flags) };
    // Ignore a failure: the calls are not accounted for then, but the program must not be disturbed.
    let _ = redirect();
    handle
}

/// Replaces `dlsym(3)`: a program that looks up a function (ctypes) gets its wrapper.
unsafe extern "C" fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void {
    // SAFETY: the caller's arguments.
    let address = unsafe { real_dlsym()(handle, symbol) };
    if address.is_null() {
        return address;
    }
    is_original(symbol, address as usize).map_or(address, |wrapper| wrapper as *mut c_void)
}

type Dlopen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

static REAL: std::sync::OnceLock<(Dlopen, Dlsym)> = std::sync::OnceLock::new();

/// Remembers libc's `dlopen` and `dlsym`, before this object's own table is changed.
pub(super) fn remember() {
    REAL.get_or_init(|| (libc::dlopen as Dlopen, libc::dlsym as Dlsym));
}

fn real_dlopen() -> Dlopen {
    REAL.get().map_or(libc::dlopen, |real| real.0)
}

fn real_dlsym() -> Dlsym {
    REAL.get().map_or(libc::dlsym, |real| real.1)
}
