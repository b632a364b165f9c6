//! Links from within the process, as the shard serves them: the same outlets and rules as for streams.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use surety_protocol::{CloseCode, PROTOCOL_VERSION};

use crate::embedded::{LinkEnd, LinkMessage, LinkSink};
use crate::shard::Shard;
use crate::shard::core::{FrameFault, OutletNumber};
use crate::shard::outlet::{Outlet, Peer, Sink};
use crate::shard::state;
use crate::shard::stream::greet;
use crate::shard::tail::{self, ChannelTail};
use crate::shared::Life;
use crate::threads;

/// Serves what the holders of links have left.
pub(super) fn take(shard: &Rc<Shard>, message: LinkMessage) {
    match message {
        LinkMessage::Open { end, caller, answer } => {
            let greeting = match shard.shared.life() {
                Life::Draining | Life::Starting => Err(CloseCode::Draining),
                Life::Serving | Life::Forked => greet(shard, caller).map_err(CloseCode::from),
            };
            if greeting.is_ok() {
                let outlet = Outlet::link(Rc::new(Peer::within(caller)), LinkSink::new(Arc::clone(&end)));
                let number = shard.core.borrow_mut().attach(outlet);
                end.outlet.store(number.index(), Ordering::Relaxed);
            }
            // Whoever asked may have gone meanwhile; then a close follows.
            let _ = answer.send(greeting);
        }
        LinkMessage::Batch { end, batch } => execute(shard, &end, batch.body()),
        LinkMessage::Close { end } => {
            let mut core = shard.core.borrow_mut();
            if let Some(number) = core.link_at(end.outlet.load(Ordering::Relaxed), &end) {
                core.detach(number, true);
            }
        }
        LinkMessage::Subscribe { from, caller, frames } => {
            // A reader that is not let in finds its channel closed.
            if let Some(reader) = tail::count_reader(shard, caller.tenant) {
                let sink = ChannelTail { frames };
                threads::spawn_task(tail::follow(
                    Rc::clone(shard),
                    caller,
                    from,
                    PROTOCOL_VERSION,
                    sink,
                    reader,
                ));
            }
        }
        LinkMessage::State { query, kind, caller, page } => {
            let greeting = match shard.shared.life() {
                Life::Draining | Life::Starting => Err(CloseCode::Draining),
                Life::Serving | Life::Forked => greet(shard, caller).map_err(CloseCode::from),
            };
            let counted = greeting.and_then(|_| state::count_asker(shard, caller).ok_or(CloseCode::TooMany));
            let shard = Rc::clone(shard);
            threads::spawn_task(async move {
                let mut page = page;
                let answer = match counted {
                    Err(code) => Err(code),
                    Ok(_counted) => tokio::select! {
                        biased;
                        () = page.closed() => return,
                        page = state::answer(&shard, caller, &query, kind, PROTOCOL_VERSION) => Ok(page),
                    },
                };
                // Whoever asked may have gone meanwhile.
                let _ = page.send(answer);
            });
        }
    }
}

fn execute(shard: &Rc<Shard>, end: &Arc<LinkEnd>, body: &[u8]) {
    let number = shard.core.borrow_mut().link_at(end.outlet.load(Ordering::Relaxed), end);
    let Some(number) = number else { return };
    let Some(peer) = shard.core.borrow_mut().peer(number) else { return };
    if let Err(fault) = shard.execute(number, &peer, body) {
        close(shard, number, fault);
    }
}

fn close(shard: &Shard, number: OutletNumber, fault: FrameFault) {
    let code = CloseCode::from(fault);
    tracing::warn!(shard = shard.id.0, "closing a link with {}: {fault}", code.name());
    let mut core = shard.core.borrow_mut();
    if let Some(Outlet { sink: Sink::Link(sink), .. }) = core.outlets.get_mut(number) {
        sink.close(code);
    }
    core.detach(number, true);
}
