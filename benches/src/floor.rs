//! What the machine itself takes: a UDP round trip, a synced write, a wake-up of another thread.

use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use wal::PageBuffer;

use crate::figures::{Latency, Recorder};
use crate::machine::pin;

/// Round trips of a bare UDP datagram of `bytes` between two threads on the given cores.
///
/// # Errors
/// If loopback has no sockets.
pub fn udp_ping_pong(rounds: u32, bytes: usize, cores: [usize; 2]) -> anyhow::Result<Latency> {
    let here = UdpSocket::bind("127.0.0.1:0")?;
    let there = UdpSocket::bind("127.0.0.1:0")?;
    here.connect(there.local_addr()?)?;
    there.connect(here.local_addr()?)?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        pin(cores[1]);
        let mut buffer = [0; 2048];
        for _ in 0..rounds {
            let length = there.recv(&mut buffer)?;
            there.send(&buffer[..length])?;
        }
        Ok(())
    });
    let recorder = crate::machine::on_core(cores[0], || -> std::io::Result<Recorder> {
        let mut recorder = Recorder::default();
        let mut buffer = vec![0; bytes];
        for _ in 0..rounds {
            let start = Instant::now();
            here.send(&buffer)?;
            here.recv(&mut buffer)?;
            recorder.add(start.elapsed());
        }
        Ok(recorder)
    })?;
    echo.join().expect("the echo does not panic")?;
    Ok(recorder.latency())
}

/// Synced writes of one page each, the way the log writes them (`O_DIRECT|O_DSYNC`, or a plain write and `fdatasync` where
/// the file system has no direct writes), into a preallocated file.
///
/// # Errors
/// If the directory cannot be written.
pub fn sync_writes(directory: &Path, rounds: u32) -> anyhow::Result<Latency> {
    let path = directory.join("sync-writes");
    let pages = 4096_u64;
    std::fs::write(&path, vec![0; usize::try_from(pages * 4096)?])?;
    std::fs::File::open(&path)?.sync_all()?;
    let direct = rustix::fs::open(&path, OFlags::WRONLY | OFlags::DIRECT | OFlags::DSYNC, Mode::empty());
    let (file, is_direct) = match direct {
        Ok(fd) => (std::fs::File::from(fd), true),
        Err(_) => (std::fs::File::options().write(true).open(&path)?, false),
    };
    let mut page = PageBuffer::with_pages(1);
    let mut recorder = Recorder::default();
    for round in 0..rounds {
        page.as_mut_bytes()[0] = round.to_le_bytes()[0];
        let start = Instant::now();
        file.write_all_at(page.as_bytes(), u64::from(round) % pages * 4096)?;
        if !is_direct {
            file.sync_data()?;
        }
        recorder.add(start.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(recorder.latency())
}

/// Half of a round trip between two threads on two cores that sleep until they are woken.
#[must_use]
pub fn wakeup(rounds: u32) -> Latency {
    let (to, at) = sync_channel::<()>(1);
    let (back, home) = sync_channel::<()>(1);
    let other = std::thread::spawn(move || {
        pin(1);
        while at.recv().is_ok() && back.send(()).is_ok() {}
    });
    let latency = crate::machine::on_core(0, move || {
        let mut recorder = Recorder::default();
        for _ in 0..rounds {
            let start = Instant::now();
            if to.send(()).is_err() || home.recv().is_err() {
                break;
            }
            recorder.add(start.elapsed() / 2);
        }
        recorder.latency()
    });
    // The channel is closed by now, so the other thread ends.
    let _ = other.join();
    latency
}
