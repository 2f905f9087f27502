import { Agent, type ClientRequestArgs, type IncomingMessage, request } from 'node:http'
import type { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import * as z from 'zod'
import { NestvmError } from '../../store/error.ts'

/** One request to Firecracker's API. It answers with nothing when all went well. */
export interface ApiRequest {
  method: 'PUT' | 'PATCH'
  path: string
  body: object
}

const faultSchema = z.object({ fault_message: z.string() })

/** Firecracker's API (its src/firecracker/swagger/firecracker.yaml) over one connection, request after request. */
export class FirecrackerApi implements AsyncDisposable {
  private readonly agent: Agent

  constructor(stream: Duplex) {
    stream.on('error', () => {})
    this.agent = new OneConnection(stream)
  }

  /** Throws `API_ERROR` with Firecracker's own words, `ENGINE_GONE`, or the signal's reason. */
  async send({ method, path, body }: ApiRequest, signal: AbortSignal): Promise<void> {
    const { status, said } = await this.exchange({ method, path, body: JSON.stringify(body) }, signal)
    if (status === 204) return
    const why = faultOf(said) ?? `status ${status}`
    throw new NestvmError('API_ERROR', `Firecracker refused ${method} ${path}: ${why}`, {
      details: { method, path, body, status, fault: why },
    })
  }

  private exchange(
    { method, path, body }: { method: string; path: string; body: string },
    signal: AbortSignal,
  ): Promise<{ status: number; said: string }> {
    const headers = { accept: 'application/json', 'content-type': 'application/json' }
    const length = { 'content-length': Buffer.byteLength(body) }
    const options = { agent: this.agent, method, path, headers: { ...headers, ...length }, signal }
    return new Promise((resolve, reject) => {
      const failed = (cause: unknown) =>
        reject(
          signal.aborted
            ? signal.reason
            : new NestvmError('ENGINE_GONE', `Firecracker did not answer ${path}`, { cause }),
        )
      const answered = (answer: IncomingMessage) => {
        text(answer).then((said) => resolve({ status: answer.statusCode ?? 0, said }), failed)
      }
      request(options, answered).on('error', failed).end(body)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.agent.destroy()
  }
}

function faultOf(said: string): string | undefined {
  try {
    return faultSchema.parse(JSON.parse(said)).fault_message
  } catch {
    return undefined
  }
}

/** Node's agent takes any stream for a connection, but for what it does to keep one that is not in use. */
class OneConnection extends Agent {
  private unused: Duplex | undefined

  constructor(private readonly stream: Duplex) {
    super({ keepAlive: true, maxSockets: 1 })
    this.unused = stream
  }

  override createConnection(_: ClientRequestArgs): Duplex {
    const { unused } = this
    this.unused = undefined
    if (!unused) throw new Error('the connection is closed')
    return unused
  }

  override keepSocketAlive(): boolean {
    return true
  }

  override reuseSocket(): void {}

  override destroy(): void {
    super.destroy()
    this.stream.destroy()
  }
}
