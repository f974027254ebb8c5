"""Stories with facts that are asked for later: data to teach a model natural questions with."""

from gcattn.data.stories.story import Story, StoryQuestion, draw_story

__all__ = ["Story", "StoryQuestion", "draw_story"]
