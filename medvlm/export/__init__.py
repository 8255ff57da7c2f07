"""A run as others can use it: adapter or merged model with processor, model card, rights and credits."""
