import { BlockList, isIP } from 'node:net'

/**
 * The address of the proxy that the environment names for a URL, by the rules of Go's x/net/http/httpproxy, which
 * docker and podman stand on: HTTPS_PROXY and HTTP_PROXY, but for NO_PROXY and for loopback.
 */
export function proxyFor(url: URL): string | undefined {
  const named = url.protocol === 'https:' ? variable('https_proxy') : variable('http_proxy')
  if (named === '' || isDirect(url)) return undefined
  return named.includes('://') ? named : `http://${named}`
}

function isDirect(url: URL): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
  const port = url.port || (url.protocol === 'https:' ? '443' : '80')
  if (host === 'localhost' || isLoopback(host)) return true
  return variable('no_proxy')
    .split(',')
    .map((entry) => entry.trim().toLowerCase())
    .some((entry) => entry === '*' || matches(entry, host, port))
}

/** An entry of NO_PROXY: a network, an address or a domain, the last two with a port or for all. */
function matches(entry: string, host: string, port: string): boolean {
  const [, network = '', bits] = /^([\d.]+|[\da-f:.]+)\/(\d+)$/.exec(entry) ?? []
  if (bits !== undefined) return isInNetwork(host, network, Number(bits))
  const [, named = entry, only = port] = isIP(entry) ? [] : (/^(.+):(\d+)$/.exec(entry) ?? [])
  const name = named.replace(/^\[|\]$/g, '').replace(/^\*(?=\.)/, '')
  if (name === '' || only !== port) return false
  return name === host || (!isIP(name) && host.endsWith(name.startsWith('.') ? name : `.${name}`))
}

function isInNetwork(host: string, network: string, bits: number): boolean {
  const version = isIP(network)
  if (version === 0 || isIP(host) !== version || bits > (version === 4 ? 32 : 128)) return false
  const list = new BlockList()
  list.addSubnet(network, bits, version === 4 ? 'ipv4' : 'ipv6')
  return list.check(host, version === 4 ? 'ipv4' : 'ipv6')
}

function isLoopback(host: string): boolean {
  return isInNetwork(host, '127.0.0.0', 8) || isInNetwork(host, '::1', 128)
}

function variable(name: string): string {
  return process.env[name.toUpperCase()] || process.env[name] || ''
}
