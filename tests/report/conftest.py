import stage_outputs

whole = stage_outputs.whole
some = stage_outputs.some
bare = stage_outputs.bare
top3 = stage_outputs.top3
coded = stage_outputs.coded
copied = stage_outputs.copied
