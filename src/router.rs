//! Paths to handlers.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use percent_encoding::percent_decode_str;

use crate::exchange::{IntoResponse, Request, Response};
use crate::http::Method;
use crate::reactor::Service;

/// What answers the requests of one route.
pub(crate) type Handler = Box<dyn Fn(&Request) -> Response + Send + Sync>;
/// What looks at a request before its route does.
pub(crate) type Before = Box<dyn Fn(&Request) -> Option<Response> + Send + Sync>;
/// What looks at a response before it is written.
pub(crate) type After = Box<dyn Fn(&Request, &mut Response) + Send + Sync>;

/// What is told of malformed requests: who sent it, the status, and the code.
pub(crate) type OnRefusal = Box<dyn Fn(SocketAddr, u16, &'static str) + Send + Sync>;

/// A route that cannot be: its path is malformed, or overlaps another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    path: String,
    reason: String,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the route `{}` cannot be added: {}. A path looks like `/rooms/{{room}}/messages`",
            self.path, self.reason
        )
    }
}

impl std::error::Error for RouteError {}

/// The routes of an engine.
#[derive(Default)]
pub(crate) struct Router {
    paths: matchit::Router<usize>,
    /// By path as it was given, where its methods are.
    indices: HashMap<String, usize>,
    methods: Vec<Vec<(Method, Handler)>>,
    pub(crate) before: Vec<Before>,
    pub(crate) after: Vec<After>,
    pub(crate) on_refusal: Vec<OnRefusal>,
}

impl Router {
    /// Adds a handler; a second one for the same path and method replaces the
    /// first.
    pub(crate) fn add<R: IntoResponse>(
        &mut self,
        method: Method,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<(), RouteError> {
        let index = match self.indices.get(path) {
            Some(index) => *index,
            None => {
                let index = self.methods.len();
                self.paths.insert(path, index).map_err(|error| RouteError {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
                self.indices.insert(path.to_owned(), index);
                self.methods.push(Vec::new());
                index
            }
        };
        let methods = &mut self.methods[index];
        methods.retain(|(other, _)| *other != method);
        methods.push((
            method,
            Box::new(move |request| handler(request).into_response()),
        ));
        Ok(())
    }

    fn route(&self, request: &mut Request) -> Response {
        let matched = match self.paths.at(request.path()) {
            Ok(matched) => matched,
            Err(_) if *request.method() == Method::Options && request.path() == "*" => {
                return Response::status(204);
            }
            Err(_) => {
                let message = "there is nothing at this path: check its spelling";
                return Response::error(404, "not_found", message);
            }
        };
        let mut params = Vec::with_capacity(matched.params.len());
        for (name, value) in matched.params.iter() {
            let Ok(value) = percent_decode_str(value).decode_utf8() else {
                let message = "the path is not UTF-8 after percent-decoding: encode UTF-8";
                return Response::error(400, "invalid_path", message);
            };
            params.push((name.into(), value.into_owned()));
        }
        let methods = &self.methods[*matched.value];
        request.set_params(params);
        let find = |wanted: &Method| methods.iter().find(|(method, _)| method == wanted);
        let found = find(request.method()).or_else(|| match request.method() {
            Method::Head => find(&Method::Get),
            _ => None,
        });
        if let Some((_, handler)) = found {
            return handler(request);
        }
        let allow = allowed(methods);
        let response = if *request.method() == Method::Options {
            Response::status(204)
        } else {
            let message = format!("this path takes {allow}: use one of these methods");
            Response::error(405, "method_not_allowed", &message)
        };
        response
            .with_header("Allow", allow)
            .expect("methods are tokens")
    }
}

/// The value of the header `Allow`.
fn allowed(methods: &[(Method, Handler)]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    if !names.contains(&"OPTIONS") {
        names.push("OPTIONS");
    }
    names.join(", ")
}

impl Service for Router {
    fn call(&self, request: &mut Request) -> Response {
        for before in &self.before {
            if let Some(response) = before(request) {
                return response;
            }
        }
        self.route(request)
    }

    fn finish(&self, request: &Request, response: &mut Response) {
        for after in &self.after {
            after(request, response);
        }
    }

    fn on_refusal(&self, source: SocketAddr, status: u16, code: &'static str) {
        for told in &self.on_refusal {
            told(source, status, code);
        }
    }
}
