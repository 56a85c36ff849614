//! What an application is told: the property sources of a commit in the order in which they win, as Spring Cloud
//! Config orders them.

use serde::{Serialize, Serializer};

use std::sync::Arc;

use crate::app::AppState;
use crate::document::{Document, Format, Properties, Unreadable};
use crate::repository::{GitError, Snapshot};

/// The names that every application reads.
const SHARED: &str = "application";
/// Within one name, the first wins.
const FORMATS: [(&str, Format); 3] =
    [("properties", Format::Properties), ("yml", Format::Yaml), ("yaml", Format::Yaml)];

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// A comma list of names, the last one wins.
    pub application: String,
    /// A comma list of profiles, the last one wins.
    pub profile: String,
    /// Branch, tag or commit, with its slashes.
    pub label: Option<String>,
}

/// Spring Cloud Config's `Environment`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    pub name: String,
    /// As asked: one text, also for a list.
    pub profiles: [String; 1],
    pub label: Option<String>,
    /// The commit.
    pub version: String,
    pub state: &'static str,
    /// The first wins.
    pub property_sources: Vec<PropertySource>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PropertySource {
    pub name: String,
    #[serde(serialize_with = "properties")]
    pub source: Arc<Properties>,
}

fn properties<S: Serializer>(properties: &Arc<Properties>, serializer: S) -> Result<S::Ok, S::Error> {
    properties.serialize(serializer)
}

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error("there is no branch, tag or commit of the name")]
    NoSuchLabel,
    #[error("{file} of commit {commit}: {reason}")]
    Unreadable { file: String, commit: String, reason: Unreadable },
    #[error(transparent)]
    Git(#[from] GitError),
}

/// # Errors
/// When the label is unknown, a file that counts can't be read, or git fails.
pub async fn answer(state: &AppState, question: &Question) -> Result<Environment, EnvironmentError> {
    let label = question.label.as_deref();
    let snapshot = state.repository.snapshot(label).await?.ok_or(EnvironmentError::NoSuchLabel)?;
    let profiles = parts(&question.profile);
    let mut property_sources = Vec::new();
    for name in file_names(&question.application, &profiles) {
        for (extension, format) in FORMATS {
            let file = format!("{name}.{extension}");
            let Some(documents) = documents(state, &snapshot, &file, format).await? else { continue };
            let alone = documents.len() == 1;
            let counted = documents.iter().enumerate().filter(|(_, document)| document.applies(&profiles));
            // The later document wins.
            property_sources.extend(counted.rev().map(|(index, document)| PropertySource {
                name: source_name(state.repository.uri(), &file, (!alone).then_some(index)),
                source: document.properties.clone(),
            }));
        }
    }
    Ok(Environment {
        name: question.application.clone(),
        profiles: [question.profile.clone()],
        label: question.label.clone(),
        version: snapshot.commit().to_owned(),
        state: "",
        property_sources,
    })
}

async fn documents(
    state: &AppState,
    snapshot: &Snapshot,
    file: &str,
    format: Format,
) -> Result<Option<Arc<[Document]>>, EnvironmentError> {
    let Some(id) = snapshot.file(file) else { return Ok(None) };
    let parsed = match state.documents.known(id, format) {
        Some(parsed) => parsed,
        None => {
            let content = state.repository.content(id).await?;
            state.documents.parse(id.to_owned(), format, &content)
        }
    };
    parsed.map(Some).map_err(|reason| EnvironmentError::Unreadable {
        file: file.to_owned(),
        commit: snapshot.commit().to_owned(),
        reason,
    })
}

/// Spring's names, which clients may have learned to read.
fn source_name(uri: &str, file: &str, index: Option<usize>) -> String {
    match index {
        None => format!("{uri}/{file}"),
        Some(index) => format!("Config resource 'file [{uri}/{file}]' via location '' (document #{index})"),
    }
}

/// Without extension, the strongest first: by profile, the last one first, and then without; in each the application's
/// own before the shared ones.
fn file_names(application: &str, profiles: &[String]) -> Vec<String> {
    let mut names = parts(application);
    // As Spring has it: who begins with "application" is not given the shared files in addition.
    if !application.starts_with(SHARED) {
        names.insert(0, SHARED.to_owned());
    }
    names.reverse();
    let with_profile =
        profiles.iter().rev().flat_map(|profile| names.iter().map(move |name| format!("{name}-{profile}")));
    with_profile.chain(names.iter().cloned()).collect()
}

/// The parts of a comma list, each once, in the place of its last mention.
fn parts(list: &str) -> Vec<String> {
    let all: Vec<&str> = list.split(',').collect();
    let last = |(index, part): &(usize, &&str)| !all[index + 1..].contains(*part);
    all.iter().enumerate().filter(last).map(|(_, part)| (*part).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_as_spring_orders_them() {
        let profiles = parts("dev,prod");
        assert_eq!(
            file_names("orders", &profiles),
            ["orders-prod", "application-prod", "orders-dev", "application-dev", "orders", "application"]
        );
        assert_eq!(file_names("application", &parts("default")), ["application-default", "application"]);
        assert_eq!(file_names("a,b", &parts("p")), ["b-p", "a-p", "application-p", "b", "a", "application"]);
        assert_eq!(parts("dev,prod,dev"), ["prod", "dev"]);
    }
}
