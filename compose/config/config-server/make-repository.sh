#!/bin/sh
# Makes the repository that the config server reads from the folder config-repo, or adds a commit to it when that folder
# has changed. Commits that were pushed into the repository by hand stay in force until then.
set -eu
repository=/var/lib/firstcome/config.git
imported=refs/firstcome/imported
export GIT_AUTHOR_NAME=compose GIT_AUTHOR_EMAIL=compose@localhost
export GIT_COMMITTER_NAME=compose GIT_COMMITTER_EMAIL=compose@localhost
export GIT_CONFIG_NOSYSTEM=1 HOME=/tmp GIT_INDEX_FILE=/tmp/index

[ -f "$repository/HEAD" ] || git init --quiet --bare --initial-branch=main "$repository"
git --git-dir "$repository" --work-tree /config-repo add --all --force .
tree=$(git --git-dir "$repository" write-tree)
if [ "$tree" = "$(git --git-dir "$repository" rev-parse --quiet --verify "$imported^{tree}" || true)" ]; then
    echo "config-repo has not changed"
    exit 0
fi
parent=$(git --git-dir "$repository" rev-parse --quiet --verify refs/heads/main || true)
commit=$(git --git-dir "$repository" commit-tree "$tree" ${parent:+-p "$parent"} -m "Import config-repo")
git --git-dir "$repository" update-ref refs/heads/main "$commit"
git --git-dir "$repository" update-ref "$imported" "$commit"
echo "imported config-repo as $commit"
