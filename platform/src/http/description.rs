//! What an OpenAPI document says of refusals, and of who is asking. Invariant: it is made out of the very problems that
//! are sent, so no document can name another code, text or header.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, ToSchema};

use super::problem::{PROBLEM_JSON, Problem};
use crate::identity;

/// By which name a document refers to [`ProblemBody`].
const SCHEMA: &str = "Problem";
/// `instance` of the examples.
const INSTANCE: &str = "/";
/// `traceId` of the examples, that of the W3C's own.
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// An RFC 9457 problem, as every refusal has it as its body.
#[derive(Debug, ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes what `Problem::render` writes")]
pub struct ProblemBody {
    #[schema(rename = "type", example = "urn:firstcome:problem:validation-failed")]
    kind: String,
    #[schema(example = "Bad Request")]
    title: String,
    #[schema(example = 400, minimum = 400, maximum = 599)]
    status: u16,
    /// Stable; programs decide by this.
    #[schema(example = "VALIDATION_FAILED")]
    code: String,
    /// For people; Korean with `Accept-Language: ko`.
    detail: String,
    /// The path that was asked for.
    #[schema(example = "/some/path")]
    instance: String,
    /// Finds the request in the logs and traces.
    #[schema(rename = "traceId", example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: String,
    /// The fields that broke their rules, with VALIDATION_FAILED.
    #[schema(required = false)]
    errors: Vec<FieldProblem>,
}

/// A field that broke its rule.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes `FieldError`")]
pub struct FieldProblem {
    #[schema(example = "limit")]
    field: String,
    #[schema(example = "must be a whole number")]
    message: String,
}

/// The schemas that [`responses`] refer to.
#[must_use]
pub fn schemas() -> BTreeMap<String, RefOr<Schema>> {
    #[derive(utoipa::OpenApi)]
    #[openapi(components(schemas(ProblemBody)))]
    struct Alone;
    let alone = <Alone as utoipa::OpenApi>::openapi();
    alone.components.map(|components| components.schemas).unwrap_or_default()
}

/// Why an operation may refuse.
pub trait Refusals {
    /// One example for each code.
    fn problems() -> Vec<Problem>;
}

/// For `responses(...)` of an operation: the refusals of `R`, which may be a tuple, and those that any operation has.
/// The first problem of a code is the example.
#[derive(Debug)]
pub struct Refused<R = ()>(PhantomData<R>);

/// Of a JSON body.
#[derive(Debug)]
pub struct Body;

/// Of values in the path or the query.
#[derive(Debug)]
pub struct Values;

/// Without a caller.
#[derive(Debug)]
pub struct NoCaller;

/// Without a caller, or with one whom it is not for.
#[derive(Debug)]
pub struct NotPermitted;

impl Refusals for () {
    fn problems() -> Vec<Problem> {
        Vec::new()
    }
}

impl Refusals for Body {
    fn problems() -> Vec<Problem> {
        vec![
            Problem::validation().field("body", "must be an object"),
            Problem::malformed_json("The body is not JSON: EOF while parsing a value at line 1 column 0."),
            Problem::payload_too_large(),
            Problem::unsupported_media_type(),
        ]
    }
}

impl Refusals for Values {
    fn problems() -> Vec<Problem> {
        vec![Problem::validation().field("id", "must be a whole number, not negative")]
    }
}

impl Refusals for NoCaller {
    fn problems() -> Vec<Problem> {
        vec![Problem::unauthenticated()]
    }
}

impl Refusals for NotPermitted {
    fn problems() -> Vec<Problem> {
        vec![Problem::unauthenticated(), Problem::forbidden()]
    }
}

impl<A: Refusals, B: Refusals> Refusals for (A, B) {
    fn problems() -> Vec<Problem> {
        [A::problems(), B::problems()].concat()
    }
}

impl<A: Refusals, B: Refusals, C: Refusals> Refusals for (A, B, C) {
    fn problems() -> Vec<Problem> {
        [A::problems(), B::problems(), C::problems()].concat()
    }
}

impl<A: Refusals, B: Refusals, C: Refusals, D: Refusals> Refusals for (A, B, C, D) {
    fn problems() -> Vec<Problem> {
        [A::problems(), B::problems(), C::problems(), D::problems()].concat()
    }
}

impl<R: Refusals> IntoResponses for Refused<R> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut problems = R::problems();
        problems.extend([Problem::internal("an example"), Problem::overloaded()]);
        responses(&problems)
    }
}

/// The responses by their status, with an example for each code. They refer to the schema of [`ProblemBody`].
#[must_use]
pub fn responses(problems: &[Problem]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<String, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        let same = by_status.entry(problem.status().as_str().to_owned()).or_default();
        if same.iter().all(|other| other.code() != problem.code()) {
            same.push(problem);
        }
    }
    by_status.into_iter().map(|(status, problems)| (status, RefOr::T(response(&problems)))).collect()
}

fn response(problems: &[&Problem]) -> Response {
    let lines: Vec<_> =
        problems.iter().map(|problem| format!("`{}`: {}", problem.code(), problem.detail())).collect();
    let examples = problems.iter().map(|problem| {
        let value = serde_json::to_value(problem.rendered(INSTANCE, Some(TRACE_ID), false)).ok();
        (problem.code(), ExampleBuilder::new().summary(problem.detail()).value(value).build())
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(SCHEMA)))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new().description(lines.join("\n\n")).content(PROBLEM_JSON, content);
    for name in problems.iter().flat_map(|problem| problem.headers().keys()) {
        let text = ObjectBuilder::new().schema_type(Type::String);
        response = response.header(title(name.as_str()), HeaderBuilder::new().schema(Some(text)).build());
    }
    response.build()
}

/// `retry-after` as `Retry-After`, the way that documents write headers.
fn title(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

/// Adds how callers are known: clients by the `bearer` token that the gateway looks at, services by the signed
/// `identity` that it makes of it.
#[derive(Debug)]
pub struct Securities;

impl Modify for Securities {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let identity = ApiKeyValue::with_description(
            identity::HEADER.as_str(),
            "Made by the gateway out of the bearer token; clients can't send it.",
        );
        components.add_security_scheme("identity", SecurityScheme::ApiKey(ApiKey::Header(identity)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Taken;

    impl Refusals for Taken {
        fn problems() -> Vec<Problem> {
            vec![
                Problem::new(http::StatusCode::CONFLICT, "TAKEN", "It is taken."),
                Problem::rate_limited().retry_after(5),
            ]
        }
    }

    #[test]
    fn refusals_are_told_by_status_with_an_example_for_each_code() {
        let told = serde_json::to_value(Refused::<(Taken, Body, NoCaller)>::responses()).unwrap();
        let statuses: Vec<_> = told.as_object().unwrap().keys().collect();
        assert_eq!(statuses, ["400", "401", "409", "413", "415", "429", "500", "503"]);
        let body = &told["400"]["content"][PROBLEM_JSON];
        assert_eq!(body["schema"]["$ref"], "#/components/schemas/Problem");
        let codes: Vec<_> = body["examples"].as_object().unwrap().keys().collect();
        assert_eq!(codes, ["MALFORMED_JSON", "VALIDATION_FAILED"]);
        let example = &told["409"]["content"][PROBLEM_JSON]["examples"]["TAKEN"]["value"];
        assert_eq!(example["type"], "urn:firstcome:problem:taken");
        assert_eq!(told["429"]["headers"]["Retry-After"]["schema"]["type"], "string");
        assert!(told["401"]["headers"]["Www-Authenticate"].is_object(), "{}", told["401"]);
        assert!(!told.to_string().contains("an example"), "a cause is in the document");
    }
}
