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
    routes: Vec<Routes>,
    pub(crate) before: Vec<Before>,
    pub(crate) after: Vec<After>,
    pub(crate) on_refusal: Vec<OnRefusal>,
}

/// What there is at one path.
#[derive(Default)]
struct Routes {
    handlers: Vec<(Method, Handler)>,
    guards: Vec<(Method, Before)>,
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
        let handlers = &mut self.at(path)?.handlers;
        handlers.retain(|(other, _)| *other != method);
        handlers.push((
            method,
            Box::new(move |request| handler(request).into_response()),
        ));
        Ok(())
    }

    /// Adds what looks at a request before its handler does.
    pub(crate) fn add_guard(
        &mut self,
        method: Method,
        path: &str,
        look: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Result<(), RouteError> {
        self.at(path)?.guards.push((method, Box::new(look)));
        Ok(())
    }

    fn at(&mut self, path: &str) -> Result<&mut Routes, RouteError> {
        let index = match self.indices.get(path) {
            Some(index) => *index,
            None => {
                let index = self.routes.len();
                self.paths.insert(path, index).map_err(|error| RouteError {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
                self.indices.insert(path.to_owned(), index);
                self.routes.push(Routes::default());
                index
            }
        };
        Ok(&mut self.routes[index])
    }

    /// Finds the handler of a request, unless somebody answers before it: what
    /// looks at all requests, the lack of a route, or what guards it.
    fn find(&self, request: &mut Request) -> Result<&Handler, Response> {
        let is_admitted = request.is_admitted();
        let looks = self.before.iter().filter(|_| !is_admitted);
        for look in looks {
            if let Some(response) = look(request) {
                return Err(response);
            }
        }
        let matched = match self.paths.at(request.path()) {
            Ok(matched) => matched,
            Err(_) if *request.method() == Method::Options && request.path() == "*" => {
                return Err(Response::status(204));
            }
            Err(_) => {
                let message = "there is nothing at this path: check its spelling";
                return Err(Response::error(404, "not_found", message));
            }
        };
        let mut params = Vec::with_capacity(matched.params.len());
        for (name, value) in matched.params.iter() {
            let Ok(value) = percent_decode_str(value).decode_utf8() else {
                let message = "the path is not UTF-8 after percent-decoding: encode UTF-8";
                return Err(Response::error(400, "invalid_path", message));
            };
            params.push((name.into(), value.into_owned()));
        }
        if !request.has_utf8_query() {
            let message = "the query is not UTF-8 after percent-decoding: encode UTF-8";
            return Err(Response::error(400, "invalid_query", message));
        }
        let routes = &self.routes[*matched.value];
        request.set_params(params);
        let (method, handler) = routes
            .handler(request.method())
            .ok_or_else(|| routes.without_handler(request.method()))?;
        let guards = routes.guards.iter().filter(|(of, _)| of == method);
        for (_, look) in guards.filter(|_| !is_admitted) {
            if let Some(response) = look(request) {
                return Err(response);
            }
        }
        Ok(handler)
    }
}

impl Routes {
    /// What answers requests of a method, and for which method it was added:
    /// HEAD is answered as GET is.
    fn handler(&self, method: &Method) -> Option<&(Method, Handler)> {
        let find = |wanted: &Method| self.handlers.iter().find(|(method, _)| method == wanted);
        find(method).or_else(|| match method {
            Method::Head => find(&Method::Get),
            _ => None,
        })
    }

    /// The answer to a method that has no handler.
    fn without_handler(&self, method: &Method) -> Response {
        let allow = allowed(&self.handlers);
        let response = if *method == Method::Options {
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
        match request.without_body(|request| self.find(request)) {
            Ok(handler) => handler(request),
            Err(response) => response,
        }
    }

    fn admit(&self, request: &mut Request) -> Option<Response> {
        self.find(request).err()
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
