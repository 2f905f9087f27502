import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Response } from 'undici'
import type { Machine } from '../../machine/machine.ts'
import { NestvmError } from '../../store/error.ts'
import { mostDocumentBytes, tooLongDocument } from '../limits.ts'
import { checkDigest, type Document, indexTypes, manifestTypes } from '../manifest.ts'
import { parseDigest, type RegistryReference } from '../reference.ts'
import { Authorization } from './authorization.ts'
import { Http } from './http.ts'
import type { Endpoint } from './settings.ts'

/** One repository at one endpoint: the pull half of the OCI distribution specification. */
export class RegistryClient implements AsyncDisposable {
  private readonly http: Http
  private readonly authorization: Authorization
  private base: Promise<string> | undefined

  constructor(
    private readonly endpoint: Endpoint,
    reference: RegistryReference,
    private readonly context: { machine: Machine; signal?: AbortSignal },
  ) {
    this.http = new Http(endpoint, context.signal)
    this.authorization = new Authorization(this.http, endpoint, reference, context)
  }

  get host(): string {
    return this.endpoint.host
  }

  /** Throws `IMAGE_NOT_FOUND`, `IMAGE_DENIED`, `IMAGE_BAD_DIGEST`, `REGISTRY_...`. */
  async manifest(name: string): Promise<Document> {
    const accept = [...indexTypes, ...manifestTypes].join(', ')
    return retrying(this.context.signal, async () => {
      const response = await this.get(`manifests/${name}`, { accept })
      const data = await wholeBody(response, `the manifest ${name}`)
      const said = response.headers.get('docker-content-digest') ?? ''
      const digest = name.includes(':') ? name : parseDigest(said) && said
      const mediaType = response.headers.get('content-type') ?? ''
      const checked = digest ?? `sha256:${createHash('sha256').update(data).digest('hex')}`
      checkDigest(data, checked, `the manifest ${name} of ${this.host}`)
      return { digest: checked, mediaType, data }
    })
  }

  /** The response to a request for a blob from a byte on; not retried. Its status is 200 or 206. */
  async blob(digest: string, from: number, signal?: AbortSignal): Promise<Response> {
    return this.get(`blobs/${digest}`, from > 0 ? { range: `bytes=${from}-` } : {}, signal)
  }

  private async get(path: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
    const url = `${await this.baseUrl()}/v2/${this.endpoint.repository}/${path}`
    const request = async () => {
      const authorization = this.authorization.header
      const all = authorization === undefined ? headers : { ...headers, authorization }
      // Bodies are taken as they are: a digest is of what is stored.
      return this.http.fetch(url, {
        headers: { ...all, 'accept-encoding': 'identity' },
        signal,
      })
    }
    let response = await request()
    if (response.status === 401 && (await this.authorization.renew(response))) {
      await response.body?.cancel()
      response = await request()
    }
    if (response.ok) return response
    throw await explain(response, `${this.endpoint.repository} at ${this.host}`)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.http[Symbol.asyncDispose]()
  }

  /** An insecure registry may speak TLS or not: the first answer tells. */
  private baseUrl(): Promise<string> {
    const { host, insecure } = this.endpoint
    if (!insecure) return Promise.resolve(`https://${host}`)
    this.base ??= this.firstToAnswer(`https://${host}`, `http://${host}`)
    return this.base
  }

  /** Where neither is spoken, what TLS said is told: a server may answer plain HTTP just to refuse it. */
  private async firstToAnswer(secure: string, plain: string): Promise<string> {
    const ping = async (base: string) => {
      const response = await this.http.fetch(`${base}/v2/`)
      await response.body?.cancel()
      return response.ok || response.status === 401
    }
    return ping(secure).then(
      () => secure,
      async (error: unknown) => {
        if (await ping(plain).catch(() => false)) return plain
        throw error
      },
    )
  }
}

const delays = [500, 1000, 2000, 4000]

/** Tries again after what passes: broken connections, and servers that are busy. */
export async function retrying<T>(
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
  progressed: () => boolean = () => false,
): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await attempt()
    } catch (error) {
      signal?.throwIfAborted()
      if (progressed()) failures = 0
      const delay = delays[failures]
      const passing =
        error instanceof NestvmError && (error.code === 'REGISTRY_UNREACHABLE' || error.code === 'REGISTRY_BUSY')
      if (!passing || delay === undefined || isHopeless(error)) throw error
      const asked = Number(error.details.retryAfterMs ?? 0)
      await sleep(Math.min(Math.max(delay, asked), 60_000), undefined, { signal })
    }
  }
}

/** A name that does not resolve, a closed port, a wrong certificate or no TLS stays so for longer than we wait. */
function isHopeless(error: NestvmError): boolean {
  return /ENOTFOUND|ECONNREFUSED|bad port|certificate|self[- ]signed|SSL routines|proxy response .4/i.test(
    error.message,
  )
}

async function wholeBody(response: Response, what: string): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let size = 0
  try {
    for await (const chunk of response.body ?? []) {
      size += chunk.length
      if (size > mostDocumentBytes) throw tooLongDocument(what)
      chunks.push(chunk)
    }
  } catch (error) {
    if (error instanceof NestvmError) throw error
    throw new NestvmError('REGISTRY_UNREACHABLE', `${what} did not come to its end`, { cause: error })
  }
  return Buffer.concat(chunks)
}

async function explain(response: Response, what: string): Promise<NestvmError> {
  const { status } = response
  const answer = await wholeBody(response, 'an error message').catch(() => Buffer.alloc(0))
  const [, said = ''] = /"message"\s*:\s*"([^"]{1,200})/.exec(answer.toString('utf8')) ?? []
  const why = said === '' ? `HTTP status ${status}` : `HTTP status ${status}, ${said}`
  const details = { status, url: response.url.split('?')[0] }
  if (status === 404) return new NestvmError('IMAGE_NOT_FOUND', `there is no such image: ${what} (${why})`, { details })
  if (status === 401 || status === 403) {
    return new NestvmError('IMAGE_DENIED', `${what} is not to be had, or not for you (${why})`, {
      hint: 'check the name; log in with podman login or docker login',
      details,
    })
  }
  if (status === 429 || status >= 500) {
    const retryAfterMs = Number(response.headers.get('retry-after') ?? 0) * 1000 || 0
    const hint = status === 429 ? 'wait, log in, or set a mirror in registries.conf' : 'try again later'
    return new NestvmError('REGISTRY_BUSY', `${what} is not served now (${why})`, {
      hint,
      details: { ...details, retryAfterMs },
    })
  }
  return new NestvmError('REGISTRY_FAILED', `${what} cannot be got (${why})`, { details })
}
