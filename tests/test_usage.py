"""Token counts that add up."""

from orchestrator.usage import CachedTokensDetails, InputTokensDetails, OutputTokensDetails, Usage


def test_counts_add_up_by_modality_and_what_nobody_told_stays_unknown() -> None:
    total = Usage()
    total.add(Usage(1, 10, 20, 30))
    assert total == Usage(1, 10, 20, 30)
    read = InputTokensDetails(text_tokens=4, audio_tokens=6, cached_tokens=2, cached_tokens_details=CachedTokensDetails(2))
    total.add(Usage(1, 10, 5, 15, read, OutputTokensDetails(audio_tokens=5)))
    total.add(Usage(1, 10, 5, 15, read, OutputTokensDetails(text_tokens=1, audio_tokens=4)))
    assert total.input_tokens_details == InputTokensDetails(8, 12, None, 4, CachedTokensDetails(4))
    assert total.output_tokens_details == OutputTokensDetails(1, 9)
    assert (total.requests, total.total_tokens) == (3, 60)
    # The counts of one response are its own.
    assert read.text_tokens == 4
    assert read.cached_tokens_details == CachedTokensDetails(2)
