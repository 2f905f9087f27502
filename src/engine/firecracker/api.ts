import { type IncomingMessage, request } from 'node:http'
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

/** Firecracker's API (its src/firecracker/swagger/firecracker.yaml): HTTP over whatever leads to its unix socket. */
export class FirecrackerApi {
  /** @param connect gives a new connection, which is closed after one request */
  constructor(private readonly connect: (signal: AbortSignal) => Promise<Duplex>) {}

  /**
   * Throws `API_ERROR` with Firecracker's own words, `ENGINE_GONE` where it does not answer, what `connect` throws, or
   * the signal's reason.
   */
  async send({ method, path, body }: ApiRequest, signal: AbortSignal): Promise<void> {
    const stream = await this.connect(signal)
    try {
      const { status, said } = await exchange(stream, { method, path, text: JSON.stringify(body) }, signal)
      if (status === 204) return
      const fault = faultOf(said) ?? `status ${status}`
      throw new NestvmError('API_ERROR', `Firecracker refused ${method} ${path}: ${fault}`, {
        details: { method, path, body, status, fault },
      })
    } finally {
      stream.destroy()
    }
  }
}

function exchange(
  stream: Duplex,
  { method, path, text: body }: { method: string; path: string; text: string },
  signal: AbortSignal,
): Promise<{ status: number; said: string }> {
  const headers = {
    accept: 'application/json',
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  }
  return new Promise((resolve, reject) => {
    const failed = (cause: unknown) => {
      const gone = new NestvmError('ENGINE_GONE', `Firecracker did not answer ${method} ${path}`, { cause })
      reject(signal.aborted ? signal.reason : gone)
    }
    const answered = (answer: IncomingMessage) => {
      text(answer).then((said) => resolve({ status: answer.statusCode ?? 0, said }), failed)
    }
    const options = { createConnection: () => stream, method, path, headers, signal }
    request(options, answered).on('error', failed).end(body)
  })
}

function faultOf(said: string): string | undefined {
  try {
    return faultSchema.parse(JSON.parse(said)).fault_message
  } catch {
    return undefined
  }
}
