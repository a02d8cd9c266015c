//! Both sides of the TLS handshake, with a time limit.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::config::{ClientTls, Profile, ServerTls};
use super::error::HandshakeError;
use super::stream::{HandshakeStep, TlsStream};

/// What a plain HTTP request to a TLS port is answered.
const PLAIN_HTTP_ANSWER: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// After a failed handshake, how long and how much to read on, so that the alert with the reason
/// reaches the client instead of a reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 * 1024;

/// The server's side of a handshake, finished within `timeout`. With [`Profile::Grpc`] the client
/// must have negotiated `h2`.
///
/// # Errors
/// See [`HandshakeError`]; the transport is closed then, after the peer was told why where TLS has a
/// way to.
pub async fn tls_accept<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
    tls: &ServerTls,
    timeout: Duration,
) -> Result<TlsStream<IO>, HandshakeError> {
    let connection = ServerConnection::new(tls.current()).map_err(HandshakeError::Tls)?;
    let mut stream = TlsStream::new(io, connection.into());
    let outcome = tokio::time::timeout(timeout, shake(&mut stream, tls.profile()))
        .await
        .unwrap_or(Err(HandshakeError::Timeout));
    match outcome {
        Ok(()) => Ok(stream),
        Err(error) => {
            if !matches!(error, HandshakeError::Timeout | HandshakeError::Io(_)) {
                let goodbye = say_goodbye(stream, matches!(error, HandshakeError::PlainHttp));
                // Whether it arrived cannot be known and changes nothing.
                drop(tokio::time::timeout(LINGER, goodbye).await);
            }
            Err(error)
        }
    }
}

/// The client's side of a handshake, finished within `timeout`. `server_name` is the DNS name or
/// address that the server's certificate must carry. With [`Profile::Grpc`] the server must have
/// negotiated `h2`.
///
/// A server may still refuse the client's certificate after this returned; the first read then
/// fails.
///
/// # Errors
/// See [`HandshakeError`].
pub async fn tls_connect<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
    tls: &ClientTls,
    server_name: &str,
    timeout: Duration,
) -> Result<TlsStream<IO>, HandshakeError> {
    let name = ServerName::try_from(server_name)
        .map_err(|_invalid| HandshakeError::ServerName(server_name.into()))?
        .to_owned();
    let connection =
        ClientConnection::new(Arc::clone(&tls.current()), name).map_err(HandshakeError::Tls)?;
    let mut stream = TlsStream::new(io, connection.into());
    tokio::time::timeout(timeout, shake(&mut stream, tls.profile()))
        .await
        .unwrap_or(Err(HandshakeError::Timeout))?;
    Ok(stream)
}

async fn shake<IO: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut TlsStream<IO>,
    profile: Profile,
) -> Result<(), HandshakeError> {
    let server = matches!(stream.connection(), rustls::Connection::Server(_));
    let mut looked = !server || profile == Profile::Grpc;
    loop {
        let finished = poll_fn(|cx| stream.poll_handshake(cx, looked))
            .await
            .map_err(|step| match step {
                HandshakeStep::Io(error) => HandshakeError::Io(error),
                HandshakeStep::Tls(error) => HandshakeError::Tls(error),
            })?;
        if finished {
            break;
        }
        if looks_like_http(stream.unread()) {
            return Err(HandshakeError::PlainHttp);
        }
        looked = true;
    }
    if profile == Profile::Grpc && stream.connection().alpn_protocol() != Some(b"h2") {
        return Err(HandshakeError::NoAlpn);
    }
    Ok(())
}

/// The first bytes of a request whose client did not expect TLS.
fn looks_like_http(bytes: &[u8]) -> bool {
    [
        b"GET /".as_slice(),
        b"HEAD ",
        b"POST ",
        b"PUT /",
        b"OPTIO",
        b"PATCH",
        b"DELET",
    ]
    .iter()
    .any(|start| bytes.starts_with(start))
}

/// Sends what is left to send, closes the sending side, and reads on for a moment.
async fn say_goodbye<IO: AsyncRead + AsyncWrite + Unpin>(
    mut stream: TlsStream<IO>,
    plain_http: bool,
) -> std::io::Result<()> {
    if plain_http {
        stream.io_mut().write_all(PLAIN_HTTP_ANSWER).await?;
        stream.io_mut().shutdown().await?;
    } else {
        stream.shutdown().await?;
    }
    let mut scratch = vec![0; 4096];
    let mut read = 0;
    while read < LINGER_BYTES {
        match stream.io_mut().read(&mut scratch).await? {
            0 => break,
            count => read += count,
        }
    }
    Ok(())
}
