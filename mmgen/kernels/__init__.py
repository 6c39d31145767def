"""Operations whose plain form is slow; each stands beside the plain form that defines it."""
