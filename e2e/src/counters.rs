//! What the services count of themselves: whether a request got through, in their own words.

use reqwest::Method;

use crate::client::Client;
use crate::stack::Stack;

/// Requests with this method that all instances of a service have answered.
///
/// # Panics
/// When one does not say.
pub async fn requests(stack: &Stack, service: &str, method: &str) -> u64 {
    let mut sum = 0;
    let label = format!("method=\"{method}\"");
    for instance in stack.instances(service) {
        let admin = Client::at(instance.admin_url.as_deref().unwrap_or_default());
        let answer = admin.send(admin.request(Method::GET, "/actuator/prometheus")).await;
        assert_eq!(answer.status, 200, "{}: {}", instance.instance, answer.text);
        let lines = answer
            .text
            .lines()
            .filter(|line| line.starts_with("http_server_requests_seconds_count{") && line.contains(&label));
        sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    sum
}
