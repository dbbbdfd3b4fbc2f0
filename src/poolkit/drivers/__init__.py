"""The databases poolkit speaks to; each module loads its library when it is used."""
