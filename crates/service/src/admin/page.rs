//! Pages of a component's own, beside those that all have.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// What a component serves besides.
pub trait Pages: Send + Sync {
    /// The page at a path, `None` when there is none. `query` is what stands behind the `?`, empty without. Called from the
    /// admin thread; must not block.
    fn page(&self, path: &str, query: &str) -> Option<Page>;
}

/// A page.
pub enum Page {
    /// A document.
    Json(serde_json::Value),
    /// Lines as they come, until there are no more or the client leaves. They may show what people log: only loopback gets
    /// them, and no browser page.
    Lines(Box<dyn Lines>),
    /// The query is not understood, or cannot be answered now: why.
    BadRequest(String),
}

/// Lines as they come.
pub trait Lines: Send {
    /// The next one, without its line end; `None` after the last.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>>;
}

/// No pages.
impl Pages for () {
    fn page(&self, _path: &str, _query: &str) -> Option<Page> {
        None
    }
}

/// The body of an answer.
pub(super) enum Body {
    Whole(Full<Bytes>),
    Lines(Box<dyn Lines>),
}

impl Default for Body {
    fn default() -> Self {
        Body::Whole(Full::default())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Body::Whole(body) => Pin::new(body).poll_frame(cx),
            Body::Lines(lines) => {
                let line = ready!(lines.poll_line(cx));
                Poll::Ready(line.map(|mut line| {
                    line.push('\n');
                    Ok(Frame::data(line.into()))
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(body) => body.is_end_stream(),
            Body::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(body) => body.size_hint(),
            Body::Lines(_) => SizeHint::default(),
        }
    }
}
