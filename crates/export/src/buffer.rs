//! A buffer per thread, so that a read neither allocates nor clears memory.

use std::cell::RefCell;

use disksmith_disk::PageBuffer;

thread_local! {
    static BUFFER: RefCell<PageBuffer> = RefCell::default();
}

/// Calls `use_it` with `length` bytes of any content.
pub(crate) fn with<T>(length: usize, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with(|cell| match cell.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.reach(length);
            use_it(&mut buffer[..length])
        }
        // Used already further up in this thread: a buffer of its own.
        Err(_) => use_it(&mut PageBuffer::zeroed(length)),
    })
}
