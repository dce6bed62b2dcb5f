// Read by node before Azurite: what it loads and does not use takes three quarters of the CPU of its start. Its
// telemetry is switched off, and its store in a database of SQL is not chosen.
const module_ = require("module");
const load = module_._load;
const UNUSED = ["applicationinsights", "./SqlBlobServer", "./SqlBlobConfiguration"];
module_._load = function (request, ...rest) {
  return UNUSED.includes(request) ? {} : load.call(this, request, ...rest);
};
