//! A bare link for packed load: whole frames out, whole reply frames in, nothing allocated per request.

use std::future::poll_fn;

use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{HelloReply, Record, Reply, Token};

use crate::transport::{Batch, Closed, Event, Link, LinkReceiver, LinkSender};

/// A link of its own to one shard. It neither repeats nor matches: when it closes, whatever was not answered is unknown.
pub struct PackedLink {
    hello: HelloReply,
    sender: PackedSender,
    receiver: PackedReceiver,
}

/// The half that sends.
pub struct PackedSender {
    link: Box<dyn LinkSender>,
    batch: Batch,
}

/// The half that receives.
pub struct PackedReceiver {
    link: Box<dyn LinkReceiver>,
    token: Option<Token>,
}

impl PackedLink {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            hello: link.hello,
            sender: PackedSender { link: link.sender, batch: Batch::new() },
            receiver: PackedReceiver { link: link.receiver, token: None },
        }
    }

    /// What the engine said first.
    #[must_use]
    pub const fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// Takes the halves apart, for two tasks.
    #[must_use]
    pub fn split(self) -> (PackedSender, PackedReceiver) {
        (self.sender, self.receiver)
    }

    /// Sends what has been pushed; see [`PackedSender::flush`].
    ///
    /// # Errors
    /// If the link is gone.
    pub async fn flush(&mut self) -> Result<(), Closed> {
        self.sender.flush().await
    }

    /// Adds a request to the next frame; see [`PackedSender::push`].
    pub fn push(&mut self, request: &[u8; RECORD_BYTES]) {
        self.sender.push(request);
    }

    /// Waits for the next reply frame; see [`PackedReceiver::receive`].
    ///
    /// # Errors
    /// If the link is gone or about to go.
    pub async fn receive(&mut self, replies: &mut Vec<Reply>) -> Result<(), Closed> {
        self.receiver.receive(replies).await
    }
}

impl PackedSender {
    /// Adds an encoded request to the next frame.
    ///
    /// # Panics
    /// If the frame is full: see [`PackedSender::room`].
    pub fn push(&mut self, request: &[u8; RECORD_BYTES]) {
        self.batch.push(std::slice::from_ref(request));
    }

    /// Adds a request to the next frame.
    ///
    /// # Panics
    /// If the frame is full: see [`PackedSender::room`].
    pub fn push_record(&mut self, request: &Record) {
        self.push(&request.to_bytes());
    }

    /// Requests that still fit into the frame.
    #[must_use]
    pub fn room(&self) -> usize {
        self.batch.room()
    }

    /// Sends what has been pushed as one frame. Returns once the transport has taken it.
    ///
    /// # Errors
    /// If the link is gone; what had been pushed may or may not have left.
    pub async fn flush(&mut self) -> Result<(), Closed> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let result = poll_fn(|cx| self.link.poll_send(cx, &mut self.batch)).await;
        self.batch.clear();
        result
    }
}

impl PackedReceiver {
    /// Waits for the next reply frame and appends its replies.
    ///
    /// # Errors
    /// If the link is gone. A goodbye is passed over: the replies to what the engine took before it still come.
    pub async fn receive(&mut self, replies: &mut Vec<Reply>) -> Result<(), Closed> {
        loop {
            match poll_fn(|cx| self.link.poll_receive(cx, replies)).await {
                Event::Replies(token) => {
                    self.token = token.or(self.token);
                    return Ok(());
                }
                Event::Goodbye => {}
                Event::Closed(closed) => return Err(closed),
            }
        }
    }

    /// The newest rollback token of the shard.
    #[must_use]
    pub const fn token(&self) -> Option<Token> {
        self.token
    }
}
