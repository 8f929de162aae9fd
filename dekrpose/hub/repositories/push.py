"""A model into a repository."""

from __future__ import annotations

from pathlib import Path

from dekrpose.errors import DekrPoseError
from dekrpose.hub.repositories.problems import client_errors, explain
from dekrpose.hub.repositories.repository import FILES, NEEDED, Repository


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    private: bool = False,
    commit_message: str | None = None,
) -> str:
    """Upload model.safetensors, config.json and README.md to Hugging Face, in one commit.

    Args:
        folder: as ``save_folder`` writes it.
        repo_id: "organisation/repository"; made if it does not exist.
        revision: branch, made if it does not exist; None means main.
        token: with write access; None means HF_TOKEN or the stored login.
        private: whether a new repository is private; an existing one stays as it is.
        commit_message: None means "Upload a model with dekrpose".

    Returns:
        The commit's URL.

    Raises:
        DekrPoseError: a file is missing, no login, no right to write, host dead. The message says what to do.
    """
    from huggingface_hub import CommitOperationAdd, constants

    folder = Path(folder)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise DekrPoseError(f"{folder} has no {' and no '.join(missing)}; write it with estimator.save_pretrained")
    repository = Repository(repo_id, revision or constants.DEFAULT_REVISION, token, Path(constants.HF_HUB_CACHE))
    api = repository.api()
    additions = [CommitOperationAdd(name, folder / name) for name in FILES if (folder / name).is_file()]
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if repository.revision != constants.DEFAULT_REVISION:
            api.create_branch(repo_id, branch=repository.revision, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            additions,
            commit_message=commit_message or "Upload a model with dekrpose",
            revision=repository.revision,
        )
    except client_errors() as error:
        what, way_out = explain(error, repository, pushing=True)
        raise DekrPoseError(f"{what}; {way_out}") from error
    return str(commit.commit_url)
