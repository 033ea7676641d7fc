//! A connection over TLS, for whichever listener speaks it. The handshake is made by the first read, so that the limits
//! on waiting for a request hold for it, too.

use std::io::{self, BufRead as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use engine::runtime::{
    AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt as _, BufResult, IoBuf, IoBufMut, IoVecBuf, IoVecBufMut,
    RawBuf, TcpStream,
};
use rustls::{ServerConfig, ServerConnection};

use super::connection::Transport;

/// Bytes that are received at a time: a record of the largest size and its frame.
const RECEIVED_BYTES: usize = 17 << 10;

/// The server's end of a TLS connection.
pub struct TlsStream {
    socket: TcpStream,
    connection: ServerConnection,
    /// Received, and from `used` on not looked at.
    received: Vec<u8>,
    used: usize,
    /// Room for what is sent.
    sending: Vec<u8>,
}

impl TlsStream {
    /// TLS over a socket. Nothing is received or sent yet.
    pub fn new(socket: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = ServerConnection::new(config)?;
        let received = Vec::with_capacity(RECEIVED_BYTES);
        Ok(Self { socket, connection, received, used: 0, sending: Vec::new() })
    }

    /// Takes in some more of what the peer sends: of what was received already, or else from the socket.
    async fn advance(&mut self) -> io::Result<()> {
        if self.used == self.received.len() {
            let (count, received) = self.socket.read(std::mem::take(&mut self.received)).await;
            (self.received, self.used) = (received, 0);
            if count? == 0 {
                self.received.clear();
            }
        }
        let mut unused = &self.received[self.used..];
        self.used += self.connection.read_tls(&mut unused)?;
        let processed = self.connection.process_new_packets();
        if let Err(error) = &processed {
            tracing::info!(%error, "a TLS connection ends");
        }
        // The handshake's next step, or the alert that says what is wrong. Either is small, and has room in the
        // socket's buffer.
        let sent = self.send_records().await;
        processed.map_err(io::Error::other)?;
        sent
    }

    /// Sends what there is to send.
    async fn send_records(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            let mut records = std::mem::take(&mut self.sending);
            records.clear();
            self.connection.write_tls(&mut records)?;
            let (sent, records) = self.socket.write_all(records).await;
            self.sending = records;
            sent?;
        }
        Ok(())
    }
}

impl AsyncReadRent for TlsStream {
    async fn read<T: IoBufMut>(&mut self, mut buffer: T) -> BufResult<usize, T> {
        loop {
            match self.connection.reader().fill_buf() {
                Ok(bytes) => {
                    let count = bytes.len().min(buffer.bytes_total());
                    // SAFETY: the buffer has room for `count` bytes, and is not where TLS keeps its own.
                    unsafe {
                        buffer.write_ptr().copy_from_nonoverlapping(bytes.as_ptr(), count);
                        buffer.set_init(count);
                    }
                    self.connection.reader().consume(count);
                    return (Ok(count), buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return (Err(error), buffer),
            }
            if let Err(error) = self.advance().await {
                return (Err(error), buffer);
            }
        }
    }

    async fn readv<T: IoVecBufMut>(&mut self, mut buffers: T) -> BufResult<usize, T> {
        // SAFETY: the vector outlives the read.
        let Some(first) = (unsafe { RawBuf::new_from_iovec_mut(&mut buffers) }) else {
            return (Ok(0), buffers);
        };
        let (count, _) = self.read(first).await;
        if let Ok(count) = count {
            // SAFETY: so many bytes were written.
            unsafe { buffers.set_init(count) };
        }
        (count, buffers)
    }
}

impl AsyncWriteRent for TlsStream {
    async fn write<T: IoBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        // SAFETY: the buffer has so many bytes that are initialised, and nobody else writes to it.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.read_ptr(), buffer.bytes_init()) };
        let taken = self.connection.writer().write(bytes);
        let sent = self.send_records().await;
        (taken.and_then(|count| sent.map(|()| count)), buffer)
    }

    async fn writev<T: IoVecBuf>(&mut self, buffers: T) -> BufResult<usize, T> {
        // SAFETY: the vector outlives the write.
        let Some(first) = (unsafe { RawBuf::new_from_iovec(&buffers) }) else { return (Ok(0), buffers) };
        let (count, _) = self.write(first).await;
        (count, buffers)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.send_records().await
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.connection.send_close_notify();
        self.send_records().await?;
        self.socket.shutdown().await
    }
}

impl AsRawFd for TlsStream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Transport for TlsStream {
    fn plain_socket(&self) -> Option<&TcpStream> {
        None
    }

    fn heard(&self) -> impl Future<Output = io::Result<()>> {
        self.socket.readable(false)
    }
}
