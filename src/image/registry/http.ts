import { readdir, readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { rootCertificates } from 'node:tls'
import { type Dispatcher, EnvHttpProxyAgent, fetch, type RequestInit, type Response } from 'undici'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'

/** HTTP with the proxies of the environment (https_proxy, no_proxy) and the user's certificates for a host. */
export class Http implements AsyncDisposable {
  private readonly agents = new Map<string, Promise<Dispatcher>>()

  constructor(private readonly signal?: AbortSignal) {}

  /** Follows redirects, which take no authorization along to other hosts. Throws `REGISTRY_UNREACHABLE`. */
  async fetch(url: string, init: RequestInit & { insecure: boolean }): Promise<Response> {
    const { insecure, ...rest } = init
    const host = new URL(url).host
    try {
      return await fetch(url, {
        ...rest,
        dispatcher: await this.agent(host, insecure),
        signal: init.signal ?? this.signal,
      })
    } catch (error) {
      init.signal?.throwIfAborted()
      this.signal?.throwIfAborted()
      throw unreachable(url, error)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.agents.values()) await (await agent).destroy().catch(() => {})
  }

  private agent(host: string, insecure: boolean): Promise<Dispatcher> {
    const key = `${host} ${insecure}`
    const found = this.agents.get(key)
    if (found) return found
    const made = makeAgent(host, insecure)
    this.agents.set(key, made)
    return made
  }
}

async function makeAgent(host: string, insecure: boolean): Promise<Dispatcher> {
  const own = await certificatesFor(host)
  const tls = { rejectUnauthorized: !insecure, ...(own.length > 0 ? { ca: [...rootCertificates, ...own] } : {}) }
  return new EnvHttpProxyAgent({
    connect: { timeout: 20_000, ...tls },
    requestTls: tls,
    headersTimeout: 60_000,
    // Between two pieces of a body.
    bodyTimeout: 60_000,
  })
}

/** Where docker and podman look for the certificates of private registries. */
async function certificatesFor(host: string): Promise<string[]> {
  const config = process.env.XDG_CONFIG_HOME || join(homedir(), '.config')
  const dirs = [join(config, 'containers/certs.d'), '/etc/containers/certs.d', '/etc/docker/certs.d']
  for (const dir of dirs) {
    const names = (await readdir(join(dir, host)).catch(() => [])).filter((name) => name.endsWith('.crt')).sort()
    if (names.length > 0) return Promise.all(names.map((name) => readFile(join(dir, host, name), 'utf8')))
  }
  return []
}

function unreachable(url: string, error: unknown): NestvmError {
  const host = new URL(url).host
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  // Where a name has several addresses, the error of all of them has a code but no message.
  const why = cause instanceof Error ? cause.message || errorCode(cause) : String(cause)
  return new NestvmError('REGISTRY_UNREACHABLE', `the registry at ${host} cannot be reached: ${why}`, {
    hint: 'check the network, https_proxy and no_proxy; mirrors and insecure registries are set in registries.conf',
    details: { host },
    cause: error,
  })
}
