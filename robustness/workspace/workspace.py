"""The workspace of a run: from cards, a store and a device it makes images, classifiers and evidence, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robustness import cards
from robustness.cards import Card, Claim
from robustness.classifiers import precision
from robustness.errors import StoreError, SweepError
from robustness.metrics.evidence import SEMANTICS, Evidence
from robustness.util.hashing import sha256_json
from robustness.workspace import attack_inputs
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.jobs import SweepJob
from robustness.workspace.models import Models

Document = dict[str, Any]
Decide = Callable[[Sequence[Claim], Evidence], bool]
"""Whether evidence of the first images decides claims."""


@dataclass
class Workspace(Models):
    """
    Returns images, weights, classifiers and evidence by card; each is made at most once and kept in the store.

    Its attributes are those of `Context`.
    """

    documents: dict[str, Document] = field(default_factory=dict)
    """The results that `cached_results` returned in this run, by key."""
    _evidence: dict[str, Evidence] = field(default_factory=dict)
    _complete: dict[tuple[str, tuple[str, ...]], Evidence] = field(default_factory=dict)
    _sources: dict[Path, Card] = field(default_factory=dict)

    def resolve(self, card: Card, sweep: str = "clean") -> SweepJob:
        """Return the images, perturbation and source of a card's sweep; SweepError if the card has no such sweep."""
        if sweep != "clean" and sweep not in card.file.sweeps:
            known = ", ".join(["clean", *card.file.sweeps])
            raise SweepError(f"{card.name} has no sweep {sweep!r}; its card has {known}")
        return SweepJob(card, sweep, self.images(card), card.perturbation(sweep), self.source(card, sweep))

    def source(self, card: Card, sweep: str) -> Card | None:
        """Return the card of a transfer attack's source, with the same sweep and images; None for other attacks."""
        path = card.source(sweep)
        if path is None:
            return None
        if path not in self._sources:
            self._sources[path] = cards.load(path)
        return self._sources[path].attacked_for(card, sweep)

    def key_fields(self, job: SweepJob) -> dict[str, Any]:
        """Return everything that evidence depends on, by content; its hash is the key. Needs no torch."""
        fields = {
            "semantics": SEMANTICS,
            **self.model_key_fields(job.card),
            "images": job.images.fingerprint,
            "perturbation": job.perturbation.model_dump(exclude={"source"}),
            "strengths": [s if isinstance(s, int | float) else s.model_dump() for s in job.strengths],
            "unit": job.unit,
            "seed": self.seed,
            "device": self.device_kind,
            "dtype": self.dtype,
        }
        if job.source is not None:
            fields["source"] = self.model_key_fields(job.source)
        if job.perturbation.needs_fitting:
            fields["generator"] = attack_inputs.generator_key(self, job.attacked, job.perturbation)
        if not self.device_kind.startswith("cpu"):
            # Before, float32 on a GPU had TF32's products in convolutions, which is torch's default.
            fields["products"] = precision.MATMUL_MODES[self.dtype]
        if job.card.file.store_probabilities:
            fields["probabilities"] = True
        return fields

    def key(self, card: Card, sweep: str) -> str:
        """Return the key of a sweep's evidence in the store."""
        return self.job_key(self.resolve(card, sweep))

    def job_key(self, job: SweepJob) -> str:
        """Return the key of a resolved sweep's evidence in the store."""
        return sha256_json(self.key_fields(job))

    def evidence(self, card: Card, sweep: str = "clean") -> Evidence:
        """Return the evidence of a card's sweep, from the store if it can be trusted, else by running the sweep."""
        job = self.resolve(card, sweep)
        fields = self.key_fields(job)
        key = sha256_json(fields)
        if key not in self._evidence:
            self._evidence[key] = self.get_or_make(
                "evidence",
                key,
                lambda: self.make_evidence(job, fields),
                read=lambda: self.store.evidence(key, card.project),
                label=f"sweeping {job.label}",
                again="swept again",
                prepare=lambda: self._make_prerequisites(job),
            )
            for note in self._evidence[key].provenance.get("model", []):
                self.notice(f"{card.name}: {note}")
        if (key, job.requested) not in self._complete:
            complete = self._attach_clean_and_source(job, self._evidence[key], self.evidence)
            assert complete is not None
            self._complete[key, job.requested] = complete
        return self._complete[key, job.requested]

    def evidence_for_claims(self, card: Card, sweep: str, decide: Decide) -> Evidence:
        """
        Return evidence that decides the claims of a card's sweep: all of it, or a part if its card asks for early stop.

        Evidence of all images serves too. Whoever needs every image takes `evidence`, which has no parts.
        """
        if not (sweep in card.file.sweeps and card.file.sweeps[sweep].early_stop):
            return self.evidence(card, sweep)
        job = self.resolve(card, sweep)
        fields = self.key_fields(job)
        full, key = sha256_json(fields), self.stopped_key(card, sweep)
        if full in self._evidence or self.store.evidence(full, card.project)[0] is not None:
            return self.evidence(card, sweep)
        if key not in self._evidence:
            self._make_prerequisites(job)

            def decided(evidence: Evidence) -> bool:
                complete = self._attach_clean_and_source(job, evidence, self.evidence)
                return complete is not None and decide(_claims(card, sweep), complete)

            self._evidence[key] = self.get_or_make(
                "evidence",
                key,
                lambda: self.make_evidence(job, self._stopped_fields(job), decided),
                read=lambda: self.store.evidence(key, card.project),
                label=f"sweeping {job.label}",
                again="swept again",
            )
        complete = self._attach_clean_and_source(job, self._evidence[key], self.evidence)
        assert complete is not None
        return complete

    def stopped_key(self, card: Card, sweep: str) -> str:
        """Return the key of a sweep's evidence if it stops early: claims are a part of it."""
        return sha256_json(self._stopped_fields(self.resolve(card, sweep)))

    def _stopped_fields(self, job: SweepJob) -> dict[str, Any]:
        rule = [[c.strength, c.metric, c.threshold, c.clean] for c in _claims(job.card, job.sweep)]
        return {**self.key_fields(job), "early_stop": rule}

    def cached_evidence(self, card: Card, sweep: str, key: str) -> Evidence | None:
        """Return evidence of this run or of the store, by its key; None if there is none. Never runs a sweep."""
        evidence = self._evidence.get(key) or self.store.evidence(key, card.project)[0]

        def get(card: Card, sweep: str) -> Evidence | None:
            return self.cached_evidence(card, sweep, self.key(card, sweep))

        return None if evidence is None else self._attach_clean_and_source(self.resolve(card, sweep), evidence, get)

    def _attach_clean_and_source(
        self, job: SweepJob, evidence: Evidence, get: Callable[[Card, str], Evidence | None]
    ) -> Evidence | None:
        """Return evidence at the requested strengths, with the clean and the source's evidence attached."""
        if job.sweep == "clean":
            return evidence
        clean = get(job.card, "clean")
        source = None if job.source is None else get(job.source, job.sweep)
        if clean is None or (job.source is not None and source is None):
            return None
        complete = evidence if evidence.strengths == job.requested else evidence.with_clean(clean, job.requested)
        return replace(complete, clean=clean, source=source)

    def stored_evidence(self, card: Card, key: str) -> Evidence | None:
        """Return evidence of the store if it can be trusted; else None, and a notice says why."""
        return self.read_or_notice(lambda: self.store.evidence(key, card.project), "swept again")

    def _make_prerequisites(self, job: SweepJob) -> None:
        """Make the evidence that a sweep is compared with: of the clean images, and of a transfer attack's source."""
        if job.sweep != "clean":
            self.evidence(job.card)
        if job.source is not None:
            self.evidence(job.source, job.sweep)

    def dependencies(self, job: SweepJob) -> dict[str, dict[str, str]]:
        """Return the source files and distributions that must be unchanged for evidence to be trusted."""
        loaded, inputs = self.classifier(job.card), attack_inputs.dependencies(self, job)
        return {
            "sources": {**loaded.dependencies, **inputs.sources},
            "distributions": {**loaded.distributions, **inputs.distributions, **job.images.distributions},
        }

    def make_evidence(
        self, job: SweepJob, fields: dict[str, Any], decided: Callable[[Evidence], bool] | None = None
    ) -> Evidence:
        """
        Sweep the chunks that are not finished, and store the evidence. The caller must hold the store's lock.

        Args:
            job: The sweep.
            fields: What `key_fields` returns for it.
            decided: Whether the first images decide all claims, so that the sweep stops.
        """
        from robustness.sweep.runner import run_sweep

        loaded, key = self.classifier(job.card), sha256_json(fields)
        inputs = attack_inputs.attack_inputs(self, job)
        chunks = StoredChunks(
            self.store, key, job.card.project, dependencies=lambda: self.dependencies(job), notice=self.notice
        )
        with self.progress(f"sweeping {job.label}") as progress, self._recording(job):
            evidence = run_sweep(
                loaded.module,
                job.images,
                job.perturbation,
                job.strengths,
                unit=job.unit,
                seed=self.seed,
                device=self.sweep_device,
                threads=self.threads,
                decision=job.card.file.model.decision,
                probabilities=job.card.file.store_probabilities,
                progress=progress,
                chunk_cache=chunks,
                device_kind=self.kind,
                dtype=self.dtype,
                decided=decided,
                **inputs.arguments,
            )
        self._notice_batching(job, evidence)
        dependencies = self.dependencies(job)
        self.check_unchanged(dependencies["sources"], *job.models)
        provenance = {"key": key, "label": job.label, "subject": fields, "run": self.store.run, "model": loaded.notes}
        evidence = replace(evidence, provenance={**evidence.provenance, **provenance, **dependencies})
        try:
            self.store.write(self.store.path("evidence", key), evidence.to_bytes())
            chunks.remove()
        except StoreError as error:
            self.notice(f"evidence of {job.label} was not kept: {error}")
        return evidence

    @contextmanager
    def _recording(self, job: SweepJob) -> Iterator[None]:
        """Record which files the code of a sweep's models reads."""
        with ExitStack() as recordings:
            for card in job.models:
                recordings.enter_context(self.classifier(card).reads.recording())
            yield

    def _notice_batching(self, job: SweepJob, evidence: Evidence) -> None:
        """Add notices about a sweep that ran in one thread or in smaller batches than planned."""
        if state := evidence.provenance.get("keeps_state"):
            self.notice(f"{job.card.name} keeps state between calls: {state}; it is swept in one thread, in order")
        if (requested := evidence.provenance.get("out_of_memory_at")) is not None:
            self.notice(
                f"memory ran out sweeping {job.label} in batches of {requested} images; it was swept in batches of "
                f"{evidence.provenance['batch_size']}"
            )


def _claims(card: Card, sweep: str) -> list[Claim]:
    return [claim for claim in card.claims() if claim.sweep == sweep]


def fresh_workspace(workspace: Workspace) -> Workspace:
    """Return an empty workspace with the same settings, so that many models need not be in memory at once."""
    return Workspace(
        workspace.store, workspace.data_root, workspace.device, workspace.seed, workspace.threads, dtype=workspace.dtype
    )
