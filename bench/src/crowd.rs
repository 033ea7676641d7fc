//! Many clients that only pull, on few threads: an epoll loop, and bodies that the kernel throws away.
//!
//! A thread for each client would be simpler. But every segment would then wake one, and on loopback the waking is
//! work of the server: nginx with 64 such clients takes three times the CPU that it takes with this.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use rustix::net::RecvFlags;

use crate::head::{Framing, Head};
use crate::http::{PATIENCE, connect, head};
use crate::report::Outcome;

/// A request without a body.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: &'static str,
    /// The path.
    pub target: String,
    /// Header lines, each with its end.
    pub headers: String,
    /// The status that the answer must have.
    pub status: u16,
}

impl Request {
    /// A GET that is answered with 200.
    pub fn get(target: String, headers: String) -> Self {
        Self { method: "GET", target, headers, status: 200 }
    }
}

/// Sends the requests of `operation(number)`, one after the other, for each number below `count`, on `clients`
/// connections.
pub fn run(
    address: SocketAddr,
    clients: usize,
    count: usize,
    operation: impl Fn(usize) -> Vec<Request> + Sync,
) -> Outcome {
    let threads = thread::available_parallelism().map_or(1, usize::from).clamp(1, clients.max(1));
    let next = AtomicUsize::new(0);
    let part = |thread: usize| {
        // The first threads take what does not divide evenly.
        let clients = clients / threads + usize::from(thread < clients % threads);
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count);
        Crowd::new(address).and_then(|mut crowd| {
            crowd.run(clients, &take, &operation)?;
            Ok(crowd.outcome)
        })
    };
    thread::scope(|scope| {
        let part = &part;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        running.into_iter().fold(Outcome::default(), |outcome, thread| {
            outcome.merge(match thread.join().expect("clients do not panic") {
                Ok(outcome) => outcome,
                Err(error) => Outcome { failures: vec![error.to_string()], ..Outcome::default() },
            })
        })
    })
}

/// The clients of one thread.
struct Crowd {
    address: SocketAddr,
    epoll: rustix::fd::OwnedFd,
    scratch: Vec<u8>,
    outcome: Outcome,
}

/// One of the clients, in the midst of an operation.
struct Client {
    stream: TcpStream,
    requests: std::vec::IntoIter<Request>,
    /// What is being answered.
    current: Request,
    began: Instant,
    bytes: u64,
    expected: Expected,
}

/// What comes next from the server.
enum Expected {
    /// The rest of a head of which this is there.
    Head(Vec<u8>),
    /// So many bytes of a body.
    Body { left: u64, closes: bool },
    /// Chunks; these are the last bytes of what came.
    Chunks { tail: Vec<u8>, closes: bool },
}

impl Crowd {
    fn new(address: SocketAddr) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { address, epoll, scratch: vec![0; 1 << 20], outcome: Outcome::default() })
    }

    fn run(
        &mut self,
        clients: usize,
        take: &impl Fn() -> Option<usize>,
        operation: &impl Fn(usize) -> Vec<Request>,
    ) -> io::Result<()> {
        let mut members: Vec<Option<Client>> = Vec::new();
        for index in 0..clients {
            members.push(self.begin(index, None, take, operation));
        }
        let mut events = Vec::with_capacity(256);
        while members.iter().any(Option::is_some) {
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience))?;
            if events.is_empty() {
                return Err(io::Error::other(format!("no answer for {} s", PATIENCE.as_secs())));
            }
            for event in &events {
                let index = event.data.u64() as usize;
                let Some(member) = members.get_mut(index) else { continue };
                let Some(mut client) = member.take() else { continue };
                *member = match client.receive(self.address, &mut self.scratch) {
                    Ok(Progress::Goes) => Some(client),
                    Ok(Progress::Done { closes }) => {
                        self.outcome.latencies.push(client.began.elapsed());
                        self.outcome.bytes += client.bytes;
                        self.begin(index, Some(client.stream).filter(|_| !closes), take, operation)
                    }
                    Err(error) => {
                        self.outcome.failures.push(format!("{}: {error}", client.current.target));
                        drop(client);
                        self.begin(index, None, take, operation)
                    }
                };
            }
        }
        Ok(())
    }

    /// Begins the next operation, on a new connection where there is none; nothing when all are done.
    fn begin(
        &mut self,
        index: usize,
        stream: Option<TcpStream>,
        take: &impl Fn() -> Option<usize>,
        operation: &impl Fn(usize) -> Vec<Request>,
    ) -> Option<Client> {
        let mut stream = stream;
        loop {
            let number = take()?;
            let began = Instant::now();
            let mut requests = operation(number).into_iter();
            let Some(current) = requests.next() else { continue };
            let opened = match stream.take() {
                Some(stream) => Ok(stream),
                None => self.open(index),
            };
            let begun = opened.and_then(|stream| {
                let expected = Expected::Head(Vec::new());
                let mut client = Client { stream, requests, current, began, bytes: 0, expected };
                client.send(self.address)?;
                Ok(client)
            });
            match begun {
                Ok(client) => return Some(client),
                Err(error) => self.outcome.failures.push(error.to_string()),
            }
        }
    }

    fn open(&self, index: usize) -> io::Result<TcpStream> {
        let stream = connect(self.address)?;
        stream.set_nonblocking(true)?;
        epoll::add(
            &self.epoll,
            &stream,
            epoll::EventData::new_u64(index as u64),
            epoll::EventFlags::IN | epoll::EventFlags::RDHUP,
        )?;
        Ok(stream)
    }
}

enum Progress {
    Goes,
    Done { closes: bool },
}

impl Client {
    /// Sends the current request: so short that the socket, with nothing else in it, always takes it.
    fn send(&mut self, address: SocketAddr) -> io::Result<()> {
        let Request { method, target, headers, .. } = &self.current;
        self.stream.write_all(head(address, method, target, headers, 0).as_bytes())
    }

    /// Takes what has come, once.
    fn receive(&mut self, address: SocketAddr, scratch: &mut [u8]) -> io::Result<Progress> {
        let received = match &mut self.expected {
            Expected::Body { left, .. } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(scratch.len());
                rustix::net::recv(self.stream.as_fd(), &mut scratch[..most], RecvFlags::TRUNC)
                    .map(|(_, count)| count)
                    .map_err(io::Error::from)
            }
            // What comes with the head is copied, and little.
            Expected::Head(_) => self.stream.read(&mut scratch[..16 << 10]),
            Expected::Chunks { .. } => self.stream.read(scratch),
        };
        let count = match received {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(Progress::Goes);
            }
            Err(error) => return Err(error),
        };
        match &mut self.expected {
            Expected::Head(bytes) => {
                bytes.extend_from_slice(&scratch[..count]);
                let Some(head) = Head::parse(bytes, self.current.method == "HEAD")? else {
                    return Ok(Progress::Goes);
                };
                if head.status != self.current.status {
                    let error = format!("answered {} instead of {}", head.status, self.current.status);
                    return Err(io::Error::other(error));
                }
                let rest = bytes.split_off(head.len);
                self.expected = match head.body {
                    Framing::Length(len) => {
                        self.bytes += len;
                        Expected::Body { left: len.saturating_sub(rest.len() as u64), closes: head.closes }
                    }
                    Framing::Chunked => {
                        self.bytes += rest.len() as u64;
                        Expected::Chunks { tail: rest, closes: head.closes }
                    }
                };
            }
            Expected::Body { left, .. } => *left -= count as u64,
            Expected::Chunks { tail, .. } => {
                self.bytes += count as u64;
                tail.extend_from_slice(&scratch[..count]);
                tail.drain(..tail.len().saturating_sub(LAST_CHUNK.len()));
            }
        }
        let closes = match &self.expected {
            Expected::Body { left: 0, closes } => *closes,
            Expected::Chunks { tail, closes } if tail.ends_with(LAST_CHUNK) => *closes,
            _ => return Ok(Progress::Goes),
        };
        let Some(request) = self.requests.next() else { return Ok(Progress::Done { closes }) };
        if closes {
            return Err(io::Error::other("the connection was closed between two requests"));
        }
        self.current = request;
        self.expected = Expected::Head(Vec::new());
        self.send(address)?;
        Ok(Progress::Goes)
    }
}

/// How a chunked body ends.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
