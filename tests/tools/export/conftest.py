import stage_outputs

whole = stage_outputs.whole
bare = stage_outputs.bare
copied = stage_outputs.copied
