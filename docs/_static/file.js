// A browser fetches no text from file://, so the local site's search lists titles only
if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
