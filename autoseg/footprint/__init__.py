from autoseg.footprint.network import STEP_PASSES, conv_elements, multiply_accumulates, n_parameters
