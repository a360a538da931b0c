"""What all tests share: no deadline per example, because machines are busy and the first call of a library is slow."""

from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
