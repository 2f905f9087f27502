import { createInterface } from 'node:readline'
import type { Duplex } from 'node:stream'
import * as z from 'zod'
import { NestvmError } from '../../store/error.ts'

const messageSchema = z.object({
  QMP: z.unknown().optional(),
  id: z.number().optional(),
  return: z.unknown().optional(),
  error: z.object({ class: z.string(), desc: z.string() }).optional(),
  event: z.string().optional(),
})

type Message = z.infer<typeof messageSchema>

/** One QMP session (QEMU's docs/interop/qmp-spec.rst) over a byte stream. */
export class Qmp implements AsyncDisposable {
  private readonly stream: Duplex
  private readonly waiting = new Map<number, (message: Message) => void>()
  /** Rejects with `ENGINE_GONE` when QEMU has closed it, mostly because QEMU has ended. */
  readonly ended: Promise<never>
  private readonly answerMs: number | undefined
  private next = 1

  private constructor(stream: Duplex, answerMs: number | undefined) {
    this.stream = stream
    this.answerMs = answerMs
    this.ended = new Promise((_, reject) => {
      const end = () => reject(new NestvmError('ENGINE_GONE', 'QEMU closed its control socket'))
      stream.once('close', end).once('end', end).on('error', end)
    })
    this.ended.catch(() => {})
  }

  /**
   * Waits for the greeting and leaves negotiation mode. When that fails, the stream is closed. A QEMU that takes longer
   * than `answerMs` to answer a command is taken for gone.
   */
  static async open(stream: Duplex, answerMs?: number): Promise<Qmp> {
    const qmp = new Qmp(stream, answerMs)
    const greeted = new Promise<void>((resolve) => {
      const lines = createInterface({ input: stream })
      // It passes on the stream's errors, which `ended` tells of already.
      lines.on('error', () => {})
      lines.on('line', (line) => {
        const message = parse(line)
        if (message === undefined) return void stream.destroy()
        if (message.QMP !== undefined) resolve()
        if (message.id === undefined) return
        qmp.waiting.get(message.id)?.(message)
        qmp.waiting.delete(message.id)
      })
    })
    try {
      await qmp.inTime(greeted)
      await qmp.execute('qmp_capabilities')
      return qmp
    } catch (error) {
      stream.destroy()
      throw error
    }
  }

  /** Throws `QMP_ERROR` with QEMU's own words. */
  async execute(command: string, argumentsOf: Record<string, unknown> = {}): Promise<unknown> {
    const id = this.next++
    const reply = new Promise<Message>((resolve) => this.waiting.set(id, resolve))
    this.stream.write(`${JSON.stringify({ execute: command, arguments: argumentsOf, id })}\n`)
    const { error, return: value } = await this.inTime(reply)
    if (error) throw new NestvmError('QMP_ERROR', `QEMU refused ${command}: ${error.desc}`, { details: { ...error } })
    return value
  }

  private async inTime<T>(answer: Promise<T>): Promise<T> {
    const timer = this.answerMs === undefined ? undefined : setTimeout(() => this.stream.destroy(), this.answerMs)
    return Promise.race([answer, this.ended]).finally(() => clearTimeout(timer))
  }

  /** A command of the human monitor, for what QMP lacks. It answers in text, and in nothing when all went well. */
  async human(line: string): Promise<string> {
    return z.string().parse(await this.execute('human-monitor-command', { 'command-line': line }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stream.destroy()
  }
}

/** Undefined for what is not QMP: whoever speaks there is not QEMU. */
function parse(line: string): Message | undefined {
  try {
    return messageSchema.parse(JSON.parse(line))
  } catch {
    return undefined
  }
}
