export interface ErrorFields {
  /** The command, option or setting that mends it. */
  hint?: string
  /** Plain data for `--json`. */
  details?: Record<string, unknown>
  cause?: unknown
  /** nestvm's own exit status for it; 125 unless said. */
  exitStatus?: number
}

/** The one error that nestvm throws on purpose. `code` is stable: scripts match on it. */
export class NestvmError extends Error {
  readonly hint: string | undefined
  readonly details: Record<string, unknown>
  readonly exitStatus: number

  constructor(
    readonly code: string,
    message: string,
    fields: ErrorFields = {},
  ) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause })
    this.name = 'NestvmError'
    this.hint = fields.hint
    this.details = fields.details ?? {}
    this.exitStatus = fields.exitStatus ?? 125
  }
}
