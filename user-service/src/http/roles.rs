//! Who may do more than others. Invariants: only who is an administrator at that moment changes roles, whatever his token
//! says; there is always one.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use platform::http::description::{Body, NoCaller, Refused};
use platform::http::extract::{Json, Path};
use platform::identity::ADMIN;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::holder::Holder;
use super::refusals::{self, LastAdmin};
use crate::app::AppState;
use crate::error::ApiError;
use crate::store::{self, Role, role, sessions, timestamp};

/// A role that is granted to an account, or taken from it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ChangeRole {
    role: Grantable,
    action: Action,
}

/// What can be granted; USER is everybody.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Grantable {
    Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    Grant,
    Take,
}

/// The account's roles as they are now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Roles {
    #[schema(example = 249_347_072_000_123_u64)]
    user_id: u64,
    roles: Vec<Role>,
}

/// Grant or take a role.
///
/// A role that is granted comes with the account's next token, at a refresh or a login. One that is taken is gone at once:
/// all logins of the account end. Granting or taking twice is no error. The last administrator stays one.
#[utoipa::path(
    post,
    path = "/users/{id}/roles",
    tag = "roles",
    security(("bearer" = [])),
    params(("id" = u64, Path, description = "The account", example = 249_347_072_000_123_u64)),
    request_body(content = ChangeRole, example = json!({"role": "ADMIN", "action": "GRANT"})),
    responses(
        (
            status = 200, description = "The account's roles", body = Roles,
            example = json!({"userId": 249_347_072_000_123_u64, "roles": ["USER", "ADMIN"]})
        ),
        Refused<(Body, NoCaller, refusals::Roles, LastAdmin)>
    )
)]
pub async fn change(
    State(state): State<AppState>,
    Holder(identity): Holder,
    Path(user): Path<u64>,
    Json(request): Json<ChangeRole>,
) -> Result<Response, ApiError> {
    if !identity.has_role(ADMIN) {
        return Err(ApiError::Forbidden);
    }
    let Grantable::Admin = request.role;
    let now = state.clock.now_ms();
    let mut transaction = state.pool.begin().await?;
    let exists = store::lock(&mut *transaction, user).await?;
    let admins = role::lock_admins(&mut *transaction).await?;
    // The token may be older than the moment at which its holder's own role was taken.
    if !admins.contains(&identity.user) {
        return Err(ApiError::Forbidden);
    }
    if !exists {
        return Err(ApiError::UserNotFound);
    }
    let mut revoked = Vec::new();
    let roles = match request.action {
        Action::Grant => {
            store::grant(&mut *transaction, user, Role::Admin, timestamp(now)).await?;
            vec![Role::User, Role::Admin]
        }
        Action::Take if admins == [user] => return Err(ApiError::LastAdmin),
        Action::Take => {
            if admins.contains(&user) {
                role::take(&mut *transaction, user, Role::Admin).await?;
                revoked = sessions::revoke_all(&mut transaction, user, None, now).await?;
            }
            vec![Role::User]
        }
    };
    transaction.commit().await?;
    state.revocations.announce(&revoked).await;
    tracing::info!(user.id = user, by = identity.user, action = ?request.action, "role changed");
    Ok(Json(Roles { user_id: user, roles }).into_response())
}
