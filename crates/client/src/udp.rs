//! Sockets that ask the kernel no more than they must: what quinn's own do for each packet in flight is a part of each lock's time.
//!
//! quinn's socket for tokio waits for room as well as for packets. On Linux room is told again after each packet that has left, so
//! that who sends one is woken, or asks the kernel once more, for nothing. And it reads until it is told that there is nothing, once
//! more for each packet. [`UdpRuntime`] waits for room only while there is none, and takes fewer packets than it has asked for as
//! "there are no more".

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// quinn's runtime for tokio with sockets that wait less. The same as quinn's own where the system is not Linux.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpRuntime;

impl Runtime for UdpRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    #[cfg(target_os = "linux")]
    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(linux::Socket::new(socket)?))
    }

    #[cfg(not(target_os = "linux"))]
    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, IoSliceMut};
    use std::net::{SocketAddr, UdpSocket};
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, ready};

    use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
    use quinn::{AsyncUdpSocket, UdpPoller};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Faults that a socket may be told of in a row before others have their turn.
    const FAULTS_MAX: usize = 8;

    /// A socket that is watched for packets alone.
    #[derive(Debug)]
    pub(super) struct Socket {
        io: AsyncFd<UdpSocket>,
        state: UdpSocketState,
        /// The kernel had no room for a packet, and has not told of room since.
        is_full: AtomicBool,
    }

    impl Socket {
        pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
            // Before it is watched: this makes its calls return rather than wait.
            let state = UdpSocketState::new((&socket).into())?;
            let io = watch(socket, Interest::READABLE)?;
            Ok(Self { io, state, is_full: AtomicBool::new(false) })
        }
    }

    /// Has the runtime watch a socket.
    #[expect(
        deprecated,
        reason = "unsound for a type that changes its descriptor while it is watched; a socket of std has one for its life"
    )]
    fn watch(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
        AsyncFd::with_interest(socket, interest)
    }

    impl AsyncUdpSocket for Socket {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Poller { socket: self, room: None })
        }

        fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
            let sent = self.state.send(self.io.get_ref().into(), transmit);
            if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                self.is_full.store(true, Ordering::Relaxed);
            }
            sent
        }

        fn poll_recv(
            &self,
            cx: &mut Context<'_>,
            buffers: &mut [IoSliceMut<'_>],
            metas: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let wanted = buffers.len().min(metas.len()).min(BATCH_SIZE);
            for _ in 0..FAULTS_MAX {
                let mut ready = ready!(self.io.poll_read_ready(cx))?;
                match self.state.recv(self.io.get_ref().into(), buffers, metas) {
                    Ok(received) => {
                        // The kernel stops short where there is nothing. Whatever comes after that is told anew: the readiness that
                        // is cleared is the one which was seen before the call. It also stops at a fault of the socket, which the
                        // next call would be told; then the rest is read when one more packet comes, as after a lost one.
                        if received < wanted {
                            ready.clear_ready();
                        }
                        return Poll::Ready(Ok(received));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    // Faults of one packet's way are told here, too, and are none of the socket's: as quinn's own does, the next
                    // packet is tried. An error would end the endpoint with all its connections.
                    Err(error) => tracing::debug!("a socket was told of a fault: {error}"),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.io.get_ref().local_addr()
        }

        fn may_fragment(&self) -> bool {
            self.state.may_fragment()
        }

        fn max_transmit_segments(&self) -> usize {
            self.state.max_gso_segments()
        }

        fn max_receive_segments(&self) -> usize {
            self.state.gro_segments()
        }
    }

    /// Waits for room, of one connection.
    #[derive(Debug)]
    struct Poller {
        socket: Arc<Socket>,
        /// The same socket, watched for room while there is none.
        room: Option<AsyncFd<UdpSocket>>,
    }

    impl Poller {
        /// Ready when there is room.
        fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let room = match self.room.take() {
                Some(room) => room,
                None => watch(self.socket.io.get_ref().try_clone()?, Interest::WRITABLE)?,
            };
            if room.poll_write_ready(cx)?.is_pending() {
                self.room = Some(room);
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }
    }

    impl UdpPoller for Poller {
        fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.socket.is_full.load(Ordering::Relaxed) {
                let watched = ready!(self.poll_room(cx));
                self.socket.is_full.store(false, Ordering::Relaxed);
                if watched.is_err() {
                    // No descriptor to watch with. An error would end the connection, and nobody would hear of it: it tries to
                    // send again as soon as all others had their turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            // Whoever still watches was told of the room as well.
            self.room = None;
            Poll::Ready(Ok(()))
        }
    }

    #[cfg(test)]
    mod tests {
        use std::future::poll_fn;
        use std::net::Ipv4Addr;
        use std::time::Duration;

        use super::*;

        const BATCH: usize = 4;

        fn bound() -> UdpSocket {
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
        }

        /// Packets until there are none for the moment; waits for the first.
        async fn drain(socket: &Socket) -> Vec<u8> {
            let mut packets = Vec::new();
            poll_fn(|cx| {
                loop {
                    let mut bytes = [[0_u8; 2048]; BATCH];
                    let mut buffers = bytes.each_mut().map(|bytes| IoSliceMut::new(bytes));
                    let mut metas = [RecvMeta::default(); BATCH];
                    match socket.poll_recv(cx, &mut buffers, &mut metas) {
                        Poll::Ready(received) => {
                            let received = received.unwrap();
                            assert!((1..=BATCH).contains(&received));
                            // Several packets of one sender may come as one.
                            for (meta, bytes) in metas.iter().zip(&bytes).take(received) {
                                packets.extend(&bytes[..meta.len]);
                            }
                        }
                        Poll::Pending if packets.is_empty() => return Poll::Pending,
                        Poll::Pending => return Poll::Ready(()),
                    }
                }
            })
            .await;
            packets
        }

        async fn within<T>(work: impl Future<Output = T>) -> T {
            tokio::time::timeout(Duration::from_secs(30), work).await.expect("a packet was not told of")
        }

        #[tokio::test]
        async fn every_packet_is_told_of_however_many_come_at_once() {
            let (here, there) = (bound(), bound());
            let to = here.local_addr().unwrap();
            let socket = Socket::new(here).unwrap();
            for round in 0..200_u8 {
                // Fewer than a batch, exactly one, exactly two, and more.
                let sent: Vec<u8> = (0..=round % 11).collect();
                for packet in &sent {
                    there.send_to(&[*packet], to).unwrap();
                }
                let mut packets = Vec::new();
                while packets.len() < sent.len() {
                    packets.extend(within(drain(&socket)).await);
                }
                assert_eq!(packets, sent);
            }
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_packet_that_comes_between_a_read_and_a_wait_is_told_of() {
            let (here, there) = (bound(), bound());
            let (to, back) = (here.local_addr().unwrap(), there.local_addr().unwrap());
            let socket = Socket::new(here).unwrap();
            // Answers at once, so that the next packet comes at any point of the reader's own work.
            let echo = std::thread::spawn(move || {
                let mut byte = [0];
                while there.recv(&mut byte).unwrap() == 1 && byte[0] != 255 {
                    there.send_to(&byte, to).unwrap();
                }
            });
            let send = |byte: u8| {
                let contents = [byte];
                let transmit = Transmit {
                    destination: back,
                    ecn: None,
                    contents: &contents,
                    segment_size: None,
                    src_ip: None,
                };
                socket.try_send(&transmit).unwrap();
            };
            for byte in (0..250_u8).cycle().take(20_000) {
                send(byte);
                assert_eq!(within(drain(&socket)).await, [byte]);
            }
            send(255);
            echo.join().unwrap();
        }

        #[tokio::test]
        async fn who_finds_no_room_waits_for_it_and_no_longer() {
            let socket = Arc::new(Socket::new(bound()).unwrap());
            let mut pollers =
                [Arc::clone(&socket).create_io_poller(), Arc::clone(&socket).create_io_poller()];
            for poller in &mut pollers {
                socket.is_full.store(true, Ordering::Relaxed);
                within(poll_fn(|cx| poller.as_mut().poll_writable(cx))).await.unwrap();
                assert!(!socket.is_full.load(Ordering::Relaxed));
            }
        }
    }
}
