//! What is spoken on a connection: one request, or a WebSocket. The driver moves both alike.

use crate::socket::Socket;
use crate::{Error, Event, Exchange};

/// One of the two.
#[derive(Debug)]
pub(crate) enum Talk {
    Http(Exchange),
    WebSocket(Box<Socket>),
}

impl Talk {
    pub fn output(&self) -> &[u8] {
        match self {
            Self::Http(exchange) => exchange.output(),
            Self::WebSocket(socket) => socket.output(),
        }
    }

    pub fn advance(&mut self, size: usize) {
        match self {
            Self::Http(exchange) => exchange.advance(size),
            Self::WebSocket(socket) => socket.advance(size),
        }
    }

    pub fn may_restart(&self) -> bool {
        match self {
            Self::Http(exchange) => exchange.may_restart(),
            Self::WebSocket(socket) => socket.may_restart(),
        }
    }

    pub fn restart(&mut self) {
        match self {
            Self::Http(exchange) => exchange.restart(),
            Self::WebSocket(socket) => socket.restart(),
        }
    }

    pub fn is_done(&self) -> bool {
        match self {
            Self::Http(exchange) => exchange.is_done(),
            Self::WebSocket(socket) => socket.is_done(),
        }
    }

    pub fn is_reusable(&self) -> bool {
        match self {
            Self::Http(exchange) => exchange.is_reusable(),
            Self::WebSocket(socket) => socket.is_reusable(),
        }
    }

    pub fn has_head_only(&self) -> bool {
        matches!(self, Self::Http(exchange) if exchange.has_head_only())
    }

    pub fn is_closing(&self) -> bool {
        matches!(self, Self::WebSocket(socket) if socket.is_closing())
    }

    pub fn wants(&self) -> usize {
        match self {
            Self::Http(exchange) => exchange.wants(),
            Self::WebSocket(socket) => socket.wants(),
        }
    }

    pub fn receive(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        match self {
            Self::Http(exchange) => exchange.receive(bytes, sink),
            Self::WebSocket(socket) => socket.receive(bytes, sink),
        }
    }

    pub fn grant(&mut self, bytes: usize, sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        match self {
            Self::Http(exchange) => exchange.grant(bytes, sink),
            Self::WebSocket(socket) => socket.grant(bytes, sink),
        }
    }

    pub fn end_of_input(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        match self {
            Self::Http(exchange) => exchange.end_of_input(sink),
            Self::WebSocket(socket) => socket.end_of_input(sink),
        }
    }
}
