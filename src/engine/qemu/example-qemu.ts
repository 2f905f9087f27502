import { createInterface } from 'node:readline'
import { Duplex, PassThrough } from 'node:stream'

export interface QmpRequest {
  execute: string
  arguments: Record<string, unknown>
  id: number
}

/** A QEMU that says what the test makes it say. */
export class FakeQemu {
  private readonly fromClient = new PassThrough()
  readonly client = new Duplex({
    read: () => {},
    write: (chunk, _, done) => void this.fromClient.write(chunk, done),
  })
  readonly requests: QmpRequest[] = []

  constructor(answer: (request: QmpRequest, qemu: FakeQemu) => void = () => {}) {
    createInterface({ input: this.fromClient }).on('line', (line) => {
      const request: QmpRequest = JSON.parse(line)
      this.requests.push(request)
      if (request.execute === 'qmp_capabilities') this.say({ return: {}, id: request.id })
      else answer(request, this)
    })
  }

  greet(): this {
    return this.say({ QMP: { version: { qemu: { major: 10 } }, capabilities: ['oob'] } })
  }

  say(message: unknown): this {
    return this.sayText(`${JSON.stringify(message)}\r\n`)
  }

  sayText(text: string): this {
    this.client.push(text)
    return this
  }

  close(): void {
    this.client.push(null)
  }
}
