//! What the services count of themselves: whether a request got through, in their own words.

use reqwest::Method;

use crate::client::Client;
use crate::stack::Stack;

/// Requests with this method that all instances of a service have answered.
///
/// # Panics
/// When one does not say.
pub async fn requests(stack: &Stack, service: &str, method: &str) -> u64 {
    counted(stack, service, "http_server_requests_seconds_count", &format!("method=\"{method}\"")).await
}

/// The sum of a counter over all instances of a service, where it has this label.
///
/// # Panics
/// When one does not say.
pub async fn counted(stack: &Stack, service: &str, metric: &str, label: &str) -> u64 {
    let mut sum = 0;
    let begins = format!("{metric}{{");
    for instance in stack.instances(service) {
        let admin = Client::at(instance.admin_url.as_deref().unwrap_or_default());
        let answer = admin.send(admin.request(Method::GET, "/actuator/prometheus")).await;
        assert_eq!(answer.status, 200, "{}: {}", instance.instance, answer.text);
        let lines = answer.text.lines().filter(|line| line.starts_with(&begins) && line.contains(label));
        sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    sum
}
