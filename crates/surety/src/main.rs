//! `surety`: the one binary. All that it does is in its library; here is its allocator.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Many small buffers from several threads: the system's allocator is slower at that, and gives less back.
#[global_allocator]
static ALLOCATOR: memory::LargePages<mimalloc::MiMalloc> = memory::LargePages(mimalloc::MiMalloc);

fn main() -> ExitCode {
    surety::main()
}
