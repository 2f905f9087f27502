import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { endpoints } from './example-api.ts'

interface Answers {
  /** The fault that a request is to get, by its path. */
  refuse?: Record<string, string>
  /** The path of a request at which the connection is to break. */
  breakAt?: string
}

/** Speaks as Firecracker does: it refuses what the API description does not allow, or not in the guest's state. */
export class ExampleFirecracker implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'fc-'))
  readonly socket = join(this.dir, 'api')
  /** What was asked and granted, in order. */
  readonly granted: { request: string; body: unknown }[] = []
  state: 'Not started' | 'Running' | 'Paused' = 'Not started'
  private readonly server = createServer((request, response) => void this.answer(request, response))

  constructor(private readonly answers: Answers = {}) {}

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(this.socket, resolve))
    return this
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '' } = request
    const said = await text(request)
    if (url === this.answers.breakAt) return void request.socket.destroy()
    const fault = this.answers.refuse?.[url] ?? this.faultIn(method, url, request.headers['content-type'], said)
    if (fault === undefined) return void response.writeHead(204).end()
    response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ fault_message: fault }))
  }

  /** Undefined where all is well: then it has taken effect. */
  private faultIn(method: string, url: string, type: string | undefined, said: string): string | undefined {
    if (type !== 'application/json') return `a body of type ${type}`
    const [, id] = /^\/(?:drives|network-interfaces)\/([^/]+)$/.exec(url) ?? []
    const endpoint = endpoints[`${method} ${id === undefined ? url : url.replace(/[^/]+$/, '*')}`]
    if (!endpoint) return `Invalid request method and/or path: ${method} ${url}.`
    const body = JSON.parse(said)
    const { success, error } = endpoint.body.safeParse(body)
    if (!success) return `An error occurred when deserializing the json body of a request: ${error.message}.`
    if (endpoint.id !== undefined && body[endpoint.id] !== id) return 'path_id does not match'
    const wrong = this.wrongState(endpoint.when, url, body)
    if (wrong !== undefined) return wrong
    this.granted.push({ request: `${method} ${url}`, body })
    return undefined
  }

  private wrongState(when: string, url: string, body: { [name: string]: unknown }): string | undefined {
    const started = this.state !== 'Not started'
    if (started ? when === 'before' || when === 'fresh' : when === 'after') {
      return `The requested operation is not supported ${started ? 'after' : 'before'} starting the microVM.`
    }
    if (when === 'fresh' && this.granted.length > 0)
      return 'Loading a microVM snapshot not allowed after configuring it'
    if (url === '/snapshot/create' && this.state !== 'Paused') return 'the microVM is not paused'
    if (body.action_type === 'InstanceStart') {
      if (!this.granted.some(({ request }) => request === 'PUT /boot-source')) return 'no kernel configured'
      this.state = 'Running'
    }
    if (url === '/vm') this.state = body.state === 'Paused' ? 'Paused' : 'Running'
    if (url === '/snapshot/load') this.state = body.resume_vm === true ? 'Running' : 'Paused'
    return undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections()
    await new Promise((resolve) => this.server.close(resolve))
    rmSync(this.dir, { recursive: true, force: true })
  }
}
