import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Sends the requests on standard input, a line each of method, target and bytes of the body, by Java's HttpClient over HTTP/2, all
 * at once; prints of each its status and its body in base64, in their order.
 */
class Http2Client {
    public static void main(String[] arguments) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var file = new FileInputStream(arguments[1])) {
            store.setCertificateEntry("authority", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).sslContext(context).build();
        List<CompletableFuture<HttpResponse<byte[]>>> answers = new ArrayList<>();
        for (var line : new BufferedReader(new InputStreamReader(System.in)).lines().toList()) {
            var parts = line.split(" ");
            var body = new byte[Integer.parseInt(parts[2])];
            Arrays.fill(body, (byte) 'u');
            var publisher = body.length > 0 ? BodyPublishers.ofByteArray(body) : BodyPublishers.noBody();
            var request = HttpRequest.newBuilder(URI.create(arguments[0] + parts[1])).method(parts[0], publisher);
            answers.add(client.sendAsync(request.header("X-Api-Key", arguments[2]).build(), BodyHandlers.ofByteArray()));
        }
        for (var waiting : answers) {
            var answer = waiting.get();
            if (answer.version() != HttpClient.Version.HTTP_2) {
                throw new IllegalStateException(answer.version().toString());
            }
            System.out.println(answer.statusCode() + " " + Base64.getEncoder().encodeToString(answer.body()));
        }
    }
}
