//! Gives back the memory that only the start needed: the pages of this program's own code and constants.
//!
//! Reading the command line and the configuration runs once through a fifth of the program, which the linker puts apart
//! (`layout.ld`). Taken out of the process, pages stay in the page cache for as long as there is room, and what the bridge
//! goes on to use comes back by itself, a minor fault for sixteen pages. Nothing is lost: the program's text is never written.

use tracing::debug;

/// Of either bound: a kernel of larger pages refuses the call, and nothing is given back.
const PAGE: usize = 4096;

#[expect(
    unsafe_code,
    reason = "the linker tells the program's bounds by symbols of the C language"
)]
mod bounds {
    unsafe extern "C" {
        /// The first byte of the program.
        pub(super) safe static __executable_start: u8;
        /// The first byte after its text.
        pub(super) safe static etext: u8;
    }
}

/// Takes the program's constants and text out of this process until they are used again.
#[expect(unsafe_code, reason = "no safe wrapper gives advice on memory")]
pub(crate) fn give_back() {
    let start = (&raw const bounds::__executable_start).addr();
    let end = (&raw const bounds::etext).addr();
    let (from, to) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    let Some(length) = to.checked_sub(from).filter(|length| *length > 0) else {
        return;
    };
    let from = std::ptr::with_exposed_provenance_mut::<libc::c_void>(from);
    // SAFETY: between the two symbols lie only read-only and executable mappings of the program's file, whose pages the kernel
    // reads again when they are touched, so no value that Rust knows of changes.
    let result = unsafe { libc::madvise(from, length, libc::MADV_DONTNEED) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        debug!(%error, "the pages of the start stay");
    }
}
