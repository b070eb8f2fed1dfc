'use strict'

// Everybody may relay; all mail goes through Haraka's queue on disk to the host and port in config/relay_to.
exports.register = function () {
  const [host, port] = this.config.get('relay_to').split(':')

  this.register_hook('lookup_rdns', 'unnamed')
  this.register_hook('rcpt', 'accept')
  this.hop = { priority: 0, exchange: host, port: parseInt(port, 10) }
  this.register_hook('get_mx', 'to_hop')
}

exports.unnamed = function (next) {
  next(OK, 'client.test') // without asking DNS
}

exports.accept = function (next, connection) {
  connection.relaying = true
  next(OK)
}

exports.to_hop = function (next) {
  next(OK, this.hop)
}
